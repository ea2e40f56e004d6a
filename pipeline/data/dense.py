"""Dense pose labels: points on an object's surface, its coarse parts, and what a dataset says about the surface. numpy only.

Source: Güler et al. 2018 (DensePose-COCO). A surface is cut into parts (charts), numbered from 1; a point has a part and (u, v)
on it in 0..1. Points and masks are in the frame of the object's box, whose sides are `FRAME` long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.data.annotations import Rows, ranges, row_indices
from pipeline.errors import DataError

FRAME = 256
FIELDS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
"""COCO's names of a label's lists: a number per point."""
MASKS = "dp_masks"
"""COCO's name of the list of run lengths, one per coarse part, empty for a part that is not seen."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """What becomes of a surface's labels when the picture is mirrored left to right."""

    parts: tuple[int, ...]
    """The part that part k + 1 becomes."""
    coarse: tuple[int, ...]
    """The coarse part that coarse part k becomes, the background first."""
    flip_u: tuple[bool, ...]
    flip_v: tuple[bool, ...]
    """Whether u (or v) of part k + 1 becomes 1 - u."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The surface that a dataset's dense pose labels mean."""

    parts: tuple[str, ...]
    """Names of the parts 1, 2, ..."""
    sizes: tuple[float, ...]
    """Per part, the length of a step of 1 in u or v, in the unit of the evaluation's kappa (0.255; metres on a human body)."""
    mirror: Mirror | None
    """None: not known, so that pictures cannot be mirrored."""

    def distance(
        self,
        parts_P: NDArray[np.integer],
        uv_P2: NDArray[np.floating],
        truth_P: NDArray[np.integer],
        truth_uv_P2: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Distances [P] between points of the surface: within a part the Euclidean distance in (u, v) times the part's size,
        infinite between parts and to the background. A chart's stand-in for geodesic distance, which needs the body's mesh."""
        sizes = np.array([np.inf, *self.sizes])
        step_P = np.linalg.norm(np.asarray(uv_P2, np.float64) - truth_uv_P2, axis=1)
        same_P = (parts_P == truth_P) & (truth_P > 0)
        return np.where(same_P, step_P * sizes[np.where(same_P, truth_P, 1)], np.inf)

    def as_json(self) -> dict[str, Any]:
        """dataset.json's form."""
        mirror = None if self.mirror is None else {name: list(getattr(self.mirror, name)) for name in Mirror.__slots__}
        return {"parts": list(self.parts), "sizes": list(self.sizes), "mirror": mirror}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Surface":
        """TypeError or KeyError where it is none."""
        mirror = content["mirror"]
        known = None if mirror is None else Mirror(**{name: tuple(mirror[name]) for name in Mirror.__slots__})
        return cls(tuple(content["parts"]), tuple(map(float, content["sizes"])), known)


BODY = Surface(
    parts=(
        *("torso back", "torso front", "right hand", "left hand", "left foot", "right foot"),
        *("right upper leg back", "left upper leg back", "right upper leg front", "left upper leg front"),
        *("right lower leg back", "left lower leg back", "right lower leg front", "left lower leg front"),
        *("left upper arm inside", "right upper arm inside", "left upper arm outside", "right upper arm outside"),
        *("left lower arm inside", "right lower arm inside", "left lower arm outside", "right lower arm outside"),
        *("head right", "head left"),
    ),
    sizes=(1.0,) * 24,
    mirror=None,
)
"""DensePose-COCO's human body. Its parts' sizes and the table that mirrors (u, v) come with the body model's own licence: they
are not here, so a part counts as one unit, and pictures are not mirrored."""


@dataclass(slots=True)
class DensePool:
    """Dense pose labels of A annotations: annotation a has the points starts[a] : starts[a + 1]."""

    points_P2: NDArray[np.float64]
    """(x, y) in the box's frame."""
    parts_P: NDArray[np.int16]
    """0 is the background."""
    uv_P2: NDArray[np.float64]
    starts: NDArray[np.int64]
    masks_B: NDArray[np.uint8]
    """JSON bytes of the coarse masks as written: decoded when used."""
    mask_starts: NDArray[np.int64]
    """[A + 1] offsets into bytes."""
    surface: Surface | None = None
    """What the dataset says; None until it is known."""

    @classmethod
    def of(cls, labels: Mapping[int, tuple[list[list[float]], bytes]], count: int) -> "DensePool | None":
        """From lists x, y, I, U, V and mask bytes by row; None when no row has any."""
        if not labels:
            return None
        rows = [labels.get(row, ([[]] * len(FIELDS), b"")) for row in range(count)]
        columns = [np.array([value for lists, _ in rows for value in lists[k]], np.float64) for k in range(len(FIELDS))]
        masks = [mask for _, mask in rows]
        return cls(
            points_P2=np.stack(columns[:2], axis=1),
            parts_P=columns[2].astype(np.int16),
            uv_P2=np.stack(columns[3:], axis=1),
            starts=np.cumsum([0, *(len(lists[0]) for lists, _ in rows)], dtype=np.int64),
            masks_B=np.frombuffer(b"".join(masks), np.uint8),
            mask_starts=np.cumsum([0, *map(len, masks)], dtype=np.int64),
        )

    def take(self, rows: Rows) -> "DensePool":
        """The labels of the annotations in `rows`, in that order."""
        index = row_indices(rows, len(self.starts) - 1)
        points, starts = ranges(self.starts, index)
        held, mask_starts = ranges(self.mask_starts, index)
        return replace(
            self,
            points_P2=self.points_P2[points],
            parts_P=self.parts_P[points],
            uv_P2=self.uv_P2[points],
            starts=starts,
            masks_B=self.masks_B[held],
            mask_starts=mask_starts,
        )

    def has(self) -> NDArray[np.bool_]:
        """bool [A]: the annotation has points."""
        return np.diff(self.starts) > 0

    def record(self, row: int) -> dict[str, Any]:
        """COCO's fields of one annotation; none where it has no label."""
        own = slice(self.starts[row], self.starts[row + 1])
        masks = self.masks_B[self.mask_starts[row] : self.mask_starts[row + 1]].tobytes()
        if own.start == own.stop and not masks:
            return {}
        lists = (*self.points_P2[own].T, self.parts_P[own], *self.uv_P2[own].T)
        fields = {name: np.ascontiguousarray(values) for name, values in zip(FIELDS, lists, strict=True)}
        return fields | ({MASKS: orjson.Fragment(masks)} if masks else {})

    def coarse(self, row: int, place: object) -> NDArray[np.uint8]:
        """Coarse part of each cell of the box, [FRAME, FRAME]; a later part covers an earlier one. DataError naming `place`."""
        from pipeline.data.masks import run_lengths  # which reads splits, and they hold pools like this

        grid = np.zeros((FRAME, FRAME), np.uint8)
        text = self.masks_B[self.mask_starts[row] : self.mask_starts[row + 1]].tobytes()
        for number, rle in enumerate(orjson.loads(text) if text else (), 1):
            if rle:
                height, width, counts = run_lengths(rle, f"{place}: {MASKS}[{number - 1}]", (FRAME, FRAME))
                inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
                grid[inside] = number
        return grid

    def reframed(self, old_A4: NDArray[np.float64], new_A4: NDArray[np.float64], place: object) -> "DensePool":
        """The same places where a box changed from `old` to `new`: points outside are dropped, coarse masks resampled."""
        changed = np.flatnonzero(self.has() & (old_A4 != new_A4).any(axis=1))
        if not len(changed):
            return self
        known = replace(self, surface=self.surface or BODY).take(changed)
        moved = DenseTruths.read(known, old_A4[changed], place).in_boxes(new_A4[changed])
        labels = {row: self._written(row) for row in np.flatnonzero(self.has()).tolist()}
        for at, row in enumerate(changed.tolist()):
            own = slice(moved.starts[at], moved.starts[at + 1])
            lists = (*moved.points_P2[own].T, moved.parts_P[own], *moved.uv_P2[own].T)
            _, masks = labels[row]
            parts = len(orjson.loads(masks)) if masks else 0
            labels[row] = ([values.tolist() for values in lists], _run_lengths(moved.coarse_G[at], parts))
        pool = DensePool.of(labels, len(self.starts) - 1)
        assert pool is not None, "some rows changed, so some have points"
        return replace(pool, surface=self.surface)

    def _written(self, row: int) -> tuple[list[list[float]], bytes]:
        """The lists x, y, I, U, V and the mask bytes of one annotation."""
        own = slice(self.starts[row], self.starts[row + 1])
        lists = (*self.points_P2[own].T, self.parts_P[own], *self.uv_P2[own].T)
        masks = self.masks_B[self.mask_starts[row] : self.mask_starts[row + 1]].tobytes()
        return [values.tolist() for values in lists], masks


def _run_lengths(grid: NDArray[np.uint8], parts: int) -> bytes:
    """The masks of coarse parts 1..parts as JSON, empty for one that is not seen."""
    from pycocotools import mask as coco_mask

    masks: list[Any] = []
    for number in range(1, parts + 1):
        inside = np.asfortranarray(grid == number, np.uint8)
        encoded = coco_mask.encode(inside) if inside.any() else None
        masks.append([] if encoded is None else {"size": encoded["size"], "counts": encoded["counts"].decode()})
    return orjson.dumps(masks)


@dataclass(frozen=True, slots=True)
class DenseTruths:
    """Dense pose labels of one picture's G objects, in the picture's pixels so that they move with it."""

    points_P2: NDArray[np.float64]
    """(x, y) in continuous pixels."""
    parts_P: NDArray[np.int16]
    uv_P2: NDArray[np.float64]
    starts: NDArray[np.int64]
    """[G + 1] offsets into points."""
    coarse_G: tuple[NDArray[np.uint8], ...]
    """[FRAME, FRAME] each; without cells where an object has no label."""
    frames_G4: NDArray[np.float64]
    """The box (x1, y1, x2, y2) that each grid covers."""
    surface: Surface

    @classmethod
    def read(cls, pool: DensePool, boxes_G4: NDArray[np.floating], place: object) -> "DenseTruths":
        """The labels of the objects with these boxes. DataError where the dataset does not say what surface they mean."""
        if pool.surface is None:
            raise DataError(place, "has dense pose labels, but dataset.json does not describe their surface", "ingest again")
        frames_G4 = np.asarray(boxes_G4, np.float64).reshape(-1, 4)
        counts = np.diff(pool.starts)
        corner_P2 = np.repeat(frames_G4[:, :2], counts, axis=0)
        side_P2 = np.repeat(frames_G4[:, 2:] - frames_G4[:, :2], counts, axis=0)
        empty = np.zeros((0, 0), np.uint8)
        grids = (pool.coarse(row, f"{place}: object {row}") if has else empty for row, has in enumerate(pool.has().tolist()))
        points_P2 = corner_P2 + pool.points_P2 / FRAME * side_P2
        return cls(points_P2, pool.parts_P, pool.uv_P2, pool.starts, tuple(grids), frames_G4, pool.surface)

    def take(self, rows: Rows) -> "DenseTruths":
        """The labels of the objects in `rows`, in that order."""
        index = row_indices(rows, len(self.starts) - 1)
        points, starts = ranges(self.starts, index)
        return replace(
            self,
            points_P2=self.points_P2[points],
            parts_P=self.parts_P[points],
            uv_P2=self.uv_P2[points],
            starts=starts,
            coarse_G=tuple(self.coarse_G[row] for row in index.tolist()),
            frames_G4=self.frames_G4[index],
        )

    def moved(self, scale: tuple[float, float], shift: tuple[float, float]) -> "DenseTruths":
        """x and y scaled by positive factors, then shifted by pixels."""
        return replace(
            self, points_P2=self.points_P2 * scale + shift, frames_G4=self.frames_G4 * [*scale, *scale] + [*shift, *shift]
        )

    def flipped(self, width: float) -> "DenseTruths":
        """Mirrored left to right: the dataset's table says what parts and coordinates become. DataError where it has none."""
        mirror = self.surface.mirror
        if mirror is None:
            raise DataError(
                "dataset",
                "does not say what its dense pose labels become in a mirrored picture",
                "train with train.augment.flip=0",
            )
        x1, y1, x2, y2 = self.frames_G4.T
        flip_PB = np.array([[False, False], *zip(mirror.flip_u, mirror.flip_v, strict=True)])[self.parts_P]
        coarse = np.array(mirror.coarse, np.uint8)
        return replace(
            self,
            points_P2=self.points_P2 * [-1, 1] + [width, 0],
            parts_P=np.array([0, *mirror.parts], np.int16)[self.parts_P],
            uv_P2=np.where(flip_PB, 1 - self.uv_P2, self.uv_P2),
            coarse_G=tuple(coarse[grid[:, ::-1]] for grid in self.coarse_G),
            frames_G4=np.stack([width - x2, y1, width - x1, y2], axis=1),
        )

    def in_boxes(self, given_G4: NDArray[np.floating]) -> "DenseTruths":
        """The same labels in the frames of the objects' present boxes: points in 0..FRAME, those outside dropped; grids
        resampled.

        A crop clips boxes, and the labels' frame with them.
        """
        boxes_G4: NDArray[np.float64] = np.asarray(given_G4, np.float64)
        owner_P = np.repeat(np.arange(len(boxes_G4)), np.diff(self.starts))
        side_G2 = np.maximum(boxes_G4[:, 2:] - boxes_G4[:, :2], 1e-6)
        points_P2 = (self.points_P2 - boxes_G4[owner_P, :2]) / side_G2[owner_P] * FRAME
        kept_P = ((points_P2 > -1e-3) & (points_P2 < FRAME + 1e-3)).all(axis=1)  # float32 boxes round by less
        return replace(
            self,
            points_P2=points_P2[kept_P].clip(0, FRAME),
            parts_P=self.parts_P[kept_P],
            uv_P2=self.uv_P2[kept_P],
            starts=np.searchsorted(owner_P[kept_P], np.arange(len(boxes_G4) + 1)),
            coarse_G=tuple(
                _window(grid, frame, box) for grid, frame, box in zip(self.coarse_G, self.frames_G4, boxes_G4, strict=True)
            ),
            frames_G4=boxes_G4,
        )


def _window(grid: NDArray[np.uint8], frame: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """What a grid over `frame` shows of `box`: nearest cell, 0 outside."""
    if not grid.size:
        return grid
    centre = (np.arange(FRAME) + 0.5) / FRAME
    places = []
    for axis in (0, 1):
        at = box[axis] + centre * (box[axis + 2] - box[axis])
        places.append(np.floor((at - frame[axis]) / max(frame[axis + 2] - frame[axis], 1e-6) * FRAME).astype(int))
    columns, rows = places
    inside = ((rows >= 0) & (rows < FRAME))[:, None] & ((columns >= 0) & (columns < FRAME))[None, :]
    return np.where(inside, grid[rows.clip(0, FRAME - 1)][:, columns.clip(0, FRAME - 1)], 0).astype(np.uint8)
