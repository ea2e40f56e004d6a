"""The built-in dataset: textured shapes on textured grounds, drawn from a seed, with exact boxes, polygons and keypoints.

Conventions: later shapes cover earlier ones. A polygon is the shape's full outline inside the picture, whatever covers it; the
box is tight around that. A rotated box is turned with the shape and holds all of it, outside the picture too. Keypoints are
corners, named in the shape's own upright frame (it turns less than half its symmetry, so the names stay unambiguous), in COCO's
convention: pixel index = continuous coordinate - 0.5; visibility 2 seen, 1 covered by a later shape, 0 (with x = y = 0) outside
the picture. Colours and textures say nothing about the class of a shape; form does.
Semantic and panoptic maps hold what is seen: shapes (a pixel belongs to the last one that covers half of it), grounds by texture.
Proposals, for models that take them, are each box moved a little several times, and random boxes; better ones score higher.
Pixels use no transcendental function, so that another CPU gives the same bytes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.config import ShapesDataset
from pipeline.data.dataset import Category, Dataset, DatasetInfo, Split, labels_of
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.shapes_dense import SURFACE, Upright, dense_labels
from pipeline.data.formats.shapes_maps import SEMANTIC, MapWriter, stuff_categories
from pipeline.data.proposals import ProposalPool

Real = NDArray[np.float64]
Random = np.random.Generator

_TRIES = 40
JITTERS = np.array([0.05, 0.1, 0.15, 0.3])
"""How far the corners of a truth's proposals move at most, in its sides."""
RANDOM_PROPOSALS = 24
_LEAST_SIDE = 6.0
"""A shape of which a side inside the picture would be shorter, in pixels, is placed elsewhere."""


@dataclass(frozen=True, slots=True)
class Form:
    """A class: its convex outline [P, 2] on the unit circle, clockwise with y down, upright."""

    name: str
    outline_P2: Real
    keypoints: dict[str, int | None]
    """Name to outline point; None is the centre."""
    turn: float
    """It is turned by at most so many degrees either way."""

    def category(self, number: int) -> Category:
        """The class as COCO describes it, keypoints joined in a ring."""
        count = len(self.keypoints)
        ring = tuple((k + 1, (k + 1) % count + 1) for k in range(count)) if count > 2 else ()
        return Category(number, self.name, "shape", tuple(self.keypoints), ring)


def _ring(count: int, first: float) -> Real:
    """`count` points on the unit circle, clockwise on the screen; `first` in degrees from the right."""
    angles = [math.radians(first + 360 * i / count) for i in range(count)]
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles])


FORMS = (
    Form("disc", _ring(48, 0), {"centre": None}, 180),
    Form("rectangle", _ring(4, -135), {"top_left": 0, "top_right": 1, "bottom_right": 2, "bottom_left": 3}, 30),
    Form("triangle", _ring(3, -90), {"tip": 0, "right": 1, "left": 2}, 45),
)


def draw_shapes(cfg: ShapesDataset, seed: int, folder: Path) -> Dataset:
    """Draw the pictures into `folder`, their maps beside it, and return their labels. The same settings and seed give the same
    bytes: every picture has a generator of its own, keyed by seed, split and number."""
    folder.mkdir(parents=True, exist_ok=True)
    categories = tuple(form.category(number) for number, form in enumerate(FORMS, 1))
    splits = {}
    for key, (name, count) in enumerate((("train", cfg.train), ("val", cfg.val))):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        maps = MapWriter(folder.parent, categories)
        proposals: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        for number in range(count):
            random = np.random.Generator(np.random.PCG64([seed % 2**63, key, number]))
            scene = draw_scene(cfg, random)
            file_name, shapes = f"{name}_{number:05d}.png", scene.labels(cfg, random)
            (folder / file_name).write_bytes(_png(scene.pixels_HW3))
            ids = range(len(annotations) + 1, len(annotations) + 1 + len(shapes))
            covers = [shape.cover_HW for shape in scene.placed]
            maps.add(file_name, scene.ground_HW, covers, [shape.number for shape in scene.placed], ids)
            images.append({"id": number + 1, "file_name": file_name, "width": cfg.size, "height": cfg.size})
            boxes_G4 = np.array([shape["bbox"] for shape in shapes], np.float64).reshape(-1, 4)
            proposals.append(propose(boxes_G4, cfg.size, np.random.Generator(np.random.PCG64([seed % 2**63, key, number, 1]))))
            for shape in shapes:
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1} | shape)
        table = image_table(images, name)
        columns = annotation_table(annotations, table, name)
        columns.label_A = labels_of(columns.category_A, [category.id for category in categories])
        # The table's order is that of the file names, which are numbered as the pictures are.
        pool = ProposalPool.joined(proposals)
        splits[name] = Split(name, table, columns, folder, maps=maps.maps(), proposals=pool)
    stuff = stuff_categories(len(FORMS))
    surface = SURFACE if cfg.dense_points else None
    origin = f"shapes:seed {seed}"
    info = DatasetInfo(categories, origin, "generated", cfg.licence, stuff=stuff, semantic=SEMANTIC, surface=surface)
    return Dataset(info, splits)


def propose(xywh_G4: Real, size: int, random: Random) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes [P, 4] (x1, y1, x2, y2) around truths (x, y, width, height) and anywhere, clipped to the picture, and scores [P]."""
    jitter_J = np.repeat(JITTERS, len(xywh_G4))
    around_J4 = np.tile(np.concatenate([xywh_G4[:, :2], xywh_G4[:, :2] + xywh_G4[:, 2:]], axis=1), (len(JITTERS), 1))
    sides_J4 = np.tile(xywh_G4[:, [2, 3, 2, 3]], (len(JITTERS), 1))
    moved_J4 = around_J4 + random.uniform(-1, 1, around_J4.shape) * sides_J4 * jitter_J[:, None]
    corner_R2 = random.uniform(0, size * 0.8, (RANDOM_PROPOSALS, 2))
    random_R4 = np.concatenate([corner_R2, corner_R2 + random.uniform(_LEAST_SIDE, size * 0.6, corner_R2.shape)], axis=1)
    boxes_P4 = np.clip(np.concatenate([moved_J4, random_R4]), 0, size)
    scores_P = np.concatenate([1 - jitter_J, random.uniform(0, 0.6, RANDOM_PROPOSALS)])
    return boxes_P4.astype(np.float32), scores_P.astype(np.float32)


@dataclass(slots=True)
class Placed:
    """A shape in the picture."""

    form: Form
    number: int
    points_P2: Real
    """The full outline in pixels."""
    centre: Real
    cover_HW: Real
    """Share of each pixel that the shape covers, 0..1."""
    rotated: list[float]
    """Its rotated box (cx, cy, w, h, degrees counter-clockwise)."""
    window: tuple[slice, slice]
    """Rows and columns outside which it covers nothing."""
    upright: Upright


@dataclass(slots=True)
class Scene:
    """A picture and what was drawn."""

    pixels_HW3: NDArray[np.uint8]
    placed: list[Placed]
    """The shapes, in drawing order."""
    ground_HW: NDArray[np.uint8]
    """Number of the ground's texture at each pixel, also below the shapes."""

    def labels(self, cfg: ShapesDataset, random: Random) -> list[dict[str, Any]]:
        """The COCO fields of each shape; points of dense poses by the generator's next numbers."""
        return list(_labels(self.placed, cfg, random))


def draw_picture(cfg: ShapesDataset, random: Random) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Pixels [H, W, 3] and the COCO fields of each shape, in drawing order."""
    scene = draw_scene(cfg, random)
    return scene.pixels_HW3, scene.labels(cfg, random)


def draw_scene(cfg: ShapesDataset, random: Random) -> Scene:
    """A picture from the generator's next numbers."""
    grid_2HW = np.mgrid[0 : cfg.size, 0 : cfg.size][::-1] + 0.5
    ground = random.uniform(30, 225, 3)
    pixels_HW3, ground_HW = _grounds(cfg, grid_2HW, ground, random)
    placed: list[Placed] = []
    for _ in range(int(random.integers(cfg.objects[0], cfg.objects[1] + 1))):
        shape = _place(cfg, random, grid_2HW, placed)
        if shape is None:
            continue
        colour = _contrasting(ground, random)
        own = shape.window
        paint_hw3 = _painted(
            grid_2HW[:, *own] - shape.centre[:, None, None],
            colour,
            random.uniform(30, 90),
            int(random.integers(len(TEXTURES))),
            cfg.size / 3,
            random,
        )
        pixels_HW3[own] += shape.cover_HW[own][..., None] * (paint_hw3 - pixels_HW3[own])
        placed.append(shape)
    pixels_HW3 += random.integers(-3, 4, pixels_HW3.shape[:2])[..., None]
    return Scene(np.clip(np.rint(pixels_HW3), 0, 255).astype(np.uint8), placed, ground_HW)


def _grounds(cfg: ShapesDataset, grid_2HW: Real, colour: Real, random: Random) -> tuple[Real, NDArray[np.uint8]]:
    """Painted ground [H, W, 3] and the texture of each pixel. Each further ground covers what lies beyond a line."""
    # Where grounds are to be told apart by their textures these must be seen.
    least, most = (10, 45) if cfg.grounds[1] == 1 else (40, 90)
    contrast, texture = random.uniform(least, most), int(random.integers(len(TEXTURES)))
    pixels_HW3 = _painted(grid_2HW, colour, contrast, texture, cfg.size, random)
    ground_HW = np.full(grid_2HW.shape[1:], texture, np.uint8)
    further = int(random.integers(cfg.grounds[0], cfg.grounds[1] + 1)) - 1 if cfg.grounds[1] > 1 else 0
    for _ in range(further):
        point, angle = random.uniform(0.25, 0.75, 2) * cfg.size, random.uniform(0, 2 * math.pi)
        away_HW = math.cos(angle) * (grid_2HW[0] - point[0]) + math.sin(angle) * (grid_2HW[1] - point[1])
        beyond_HW = np.clip(away_HW + 0.5, 0, 1)
        contrast, texture = random.uniform(least, most), int(random.integers(len(TEXTURES)))
        own = np.clip(colour + random.uniform(-30, 30, 3), 30, 225)
        pixels_HW3 += beyond_HW[..., None] * (_painted(grid_2HW, own, contrast, texture, cfg.size, random) - pixels_HW3)
        ground_HW[beyond_HW >= 0.5] = texture
    return pixels_HW3, ground_HW


# -- geometry --


def _place(cfg: ShapesDataset, random: Random, grid_2HW: Real, placed: list[Placed]) -> Placed | None:
    """A shape where it hides at most `cfg.hidden` of each earlier one; None when no place was found."""
    for _ in range(_TRIES):
        number = int(random.integers(len(FORMS)))
        form = FORMS[number]
        smallest, largest = cfg.diameter
        radius = cfg.size * smallest * (largest / smallest) ** random.uniform() / 2
        angle = math.radians(random.uniform(-form.turn, form.turn))
        centre = random.uniform(0.3 * radius, cfg.size - 0.3 * radius, 2)
        squeeze = np.array([1.0, 1.0])
        squeeze[random.integers(2)] = random.uniform(0.7, 1.0)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        points_P2 = (form.outline_P2 * squeeze * radius) @ turn + centre
        inside_P2 = clipped(points_P2, cfg.size)
        if len(inside_P2) < 3 or np.ptp(inside_P2, axis=0).min() < _LEAST_SIDE:
            continue
        window = _window(points_P2, cfg.size)
        cover_HW = np.zeros(grid_2HW.shape[1:])
        cover_HW[window] = coverage(points_P2, grid_2HW[:, *window])
        rotated = _rotated_box(form.outline_P2 * squeeze * radius, centre, -math.degrees(angle))
        inverse_22 = turn.T / (squeeze * radius)
        disc = len(form.keypoints) == 1
        upright = Upright(centre, inverse_22 @ turn if disc else inverse_22, form.outline_P2, disc)
        shape = Placed(form, number + 1, points_P2, centre, cover_HW, rotated, window, upright)
        if all(_seen(k, [*placed, shape]) >= 1 - cfg.hidden for k in range(len(placed))):
            return shape
    return None


def _rotated_box(upright_P2: Real, centre: Real, degrees: float) -> list[float]:
    """The box around an outline drawn upright, turned with it; of the angles that say the same the one in [-45, 45)."""
    low, high = upright_P2.min(axis=0), upright_P2.max(axis=0)
    along, down = ((low + high) / 2).tolist()
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = float(centre[0]) + cosine * along + sine * down, float(centre[1]) - sine * along + cosine * down
    width, height = (high - low).tolist()
    turns = math.floor((degrees + 45) / 90)
    if turns % 2:
        width, height = height, width
    return [round(value, 2) + 0.0 for value in (x, y, width, height, degrees - 90 * turns)]


def _seen(number: int, placed: list[Placed]) -> float:
    """Share of shape `number` that no later shape covers."""
    own = placed[number].window
    seen_hw = whole_hw = placed[number].cover_HW[own]
    for later in placed[number + 1 :]:
        seen_hw = seen_hw * (1 - later.cover_HW[own])
    return float(seen_hw.sum() / max(whole_hw.sum(), 1e-9))


def _window(points_P2: Real, size: int) -> tuple[slice, slice]:
    (left, top), (right, bottom) = np.floor(points_P2.min(axis=0)).astype(int) - 1, np.ceil(points_P2.max(axis=0)).astype(int) + 1
    return slice(max(0, int(top)), min(size, int(bottom))), slice(max(0, int(left)), min(size, int(right)))


def coverage(points_P2: Real, grid_2HW: Real) -> Real:
    """How much of each pixel [H, W] a convex clockwise outline covers, from the distance of its centre to the nearest edge."""
    outside_HW = np.full(grid_2HW.shape[1:], -np.inf)
    for start, end in zip(points_P2, np.roll(points_P2, -1, axis=0), strict=True):
        along = (end - start) / math.hypot(*(end - start))
        np.maximum(outside_HW, (grid_2HW[0] - start[0]) * along[1] - (grid_2HW[1] - start[1]) * along[0], out=outside_HW)
    return np.clip(0.5 - outside_HW, 0, 1)


def clipped(points_P2: Real, size: float) -> Real:
    """The part of a convex outline inside the square picture (Sutherland and Hodgman 1974); may be empty."""
    points = list(points_P2)
    for axis, sign, limit in ((0, 1, 0.0), (0, -1, -size), (1, 1, 0.0), (1, -1, -size)):
        kept = []
        for k, point in enumerate(points):
            before = points[k - 1]
            depth, depth_before = sign * point[axis] - limit, sign * before[axis] - limit
            if (depth >= 0) != (depth_before >= 0):
                kept.append(before + (point - before) * (depth_before / (depth_before - depth)))
            if depth >= 0:
                kept.append(point)
        points = kept
    return np.array(points).reshape(-1, 2)


def _labels(placed: list[Placed], cfg: ShapesDataset, random: Random) -> Iterator[dict[str, Any]]:
    size = cfg.size
    for number, shape in enumerate(placed):
        outline_P2 = np.round(clipped(shape.points_P2, size), 2) + 0.0  # no -0.0
        low, high = outline_P2.min(axis=0), outline_P2.max(axis=0)
        after = np.roll(outline_P2, -1, axis=0)
        area = abs(float((outline_P2[:, 0] * after[:, 1] - outline_P2[:, 1] * after[:, 0]).sum())) / 2
        box = [*low.tolist(), *np.round(high - low, 2).tolist()]
        behind = [other.upright for other in placed[number + 1 :]]
        dense = dense_labels(shape.upright, behind, box, size, cfg.dense_points, random) if cfg.dense_points else {}
        yield dense | {
            "category_id": shape.number,
            "bbox": box,
            "area": round(area, 2),
            "iscrowd": 0,
            "segmentation": [outline_P2.reshape(-1).tolist()],
            "keypoints": _keypoints(shape, placed[number + 1 :], size),
            "rbox": shape.rotated,
        }


def _keypoints(shape: Placed, later: list[Placed], size: int) -> list[float]:
    values: list[float] = []
    for corner in shape.form.keypoints.values():
        x, y = (shape.centre if corner is None else shape.points_P2[corner]).tolist()
        if not (0 <= x < size and 0 <= y < size):
            values += [0.0, 0.0, 0.0]
            continue
        hidden = any(other.cover_HW[int(y), int(x)] > 0.5 for other in later)
        values += [round(x - 0.5, 2), round(y - 0.5, 2), 1.0 if hidden else 2.0]
    return values


# -- paint --


def _painted(grid_2HW: Real, colour: Real, contrast: float, number: int, scale: float, random: Random) -> Real:
    """Texture `number` [H, W, 3] of two colours around `colour`, up to `contrast` apart, marks of about a quarter of `scale`."""
    texture = TEXTURES[number]
    angle = random.uniform(0, math.pi)
    along_HW = math.cos(angle) * grid_2HW[0] + math.sin(angle) * grid_2HW[1]
    across_HW = math.cos(angle) * grid_2HW[1] - math.sin(angle) * grid_2HW[0]
    mix_HW = texture(along_HW, across_HW, scale * random.uniform(0.15, 0.35), random)
    difference = contrast * random.choice([-1.0, 1.0], 3) * random.uniform(0.3, 1, 3)
    return colour + (mix_HW[..., None] - 0.5) * difference


def _stripes(along_HW: Real, across_HW: Real, period: float, random: Random) -> Real:
    """Soft-edged stripes across `along`, 0..1."""
    phase_HW = np.abs((along_HW / period) % 1 - 0.5)
    return np.clip((phase_HW - 0.25) * period + 0.5, 0, 1)


def _checks(along_HW: Real, across_HW: Real, period: float, random: Random) -> Real:
    one_HW, two_HW = _stripes(along_HW, across_HW, period, random), _stripes(across_HW, along_HW, period, random)
    return one_HW + two_HW - 2 * one_HW * two_HW


def _dots(along_HW: Real, across_HW: Real, period: float, random: Random) -> Real:
    distance_HW = np.sqrt(((along_HW / period) % 1 - 0.5) ** 2 + ((across_HW / period) % 1 - 0.5) ** 2) * period
    return np.clip(0.32 * period - distance_HW + 0.5, 0, 1)


def _ramp(along_HW: Real, across_HW: Real, period: float, random: Random) -> Real:
    """One slope over the whole."""
    return np.clip(along_HW / (8 * period) + 0.5, 0, 1)


def _clouds(along_HW: Real, across_HW: Real, period: float, random: Random) -> Real:
    """Values of a random lattice, joined smoothly."""
    lattice = random.uniform(0, 1, (16, 16))
    x_HW, y_HW = along_HW / period, across_HW / period
    left_HW, top_HW = np.floor(x_HW).astype(int), np.floor(y_HW).astype(int)
    u_HW, v_HW = x_HW - left_HW, y_HW - top_HW
    u_HW, v_HW = u_HW * u_HW * (3 - 2 * u_HW), v_HW * v_HW * (3 - 2 * v_HW)
    a, b = lattice[top_HW % 16, left_HW % 16], lattice[top_HW % 16, (left_HW + 1) % 16]
    c, d = lattice[(top_HW + 1) % 16, left_HW % 16], lattice[(top_HW + 1) % 16, (left_HW + 1) % 16]
    upper_HW, lower_HW = a + (b - a) * u_HW, c + (d - c) * u_HW
    mixed_HW: Real = upper_HW + (lower_HW - upper_HW) * v_HW
    return mixed_HW


TEXTURES: tuple[Callable[[Real, Real, float, Random], Real], ...] = (_stripes, _checks, _dots, _ramp, _clouds)


def _contrasting(ground: Real, random: Random) -> Real:
    """A colour that stands out from the ground's mean colour."""
    for _ in range(_TRIES):
        colour = random.uniform(30, 225, 3)
        if np.abs(colour - ground).sum() >= 140:
            return colour
    return 255 - ground


def _png(pixels_HW3: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()
