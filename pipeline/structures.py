"""The padded batches that the detector core takes and gives. Axes: `N` images, `G` truths, `D` detections, `M` cells."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor


class _Batch:
    """Tensors that move together."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`; fields that are None stay None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor | _Batch)}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(slots=True)
class Images(_Batch):
    """A batch of pictures, padded at the right and bottom."""

    pixels_N3HW: Tensor
    """uint8, channels in the order that the model's config names; H and W are multiples of the model's divisor."""
    sizes_N2: Tensor
    """int64 (height, width) of the real picture inside the padding, in pixels."""
    proposals_NP4: Tensor | None = None
    """float32 (x1, y1, x2, y2) of given proposals by falling score, where the model takes them; padded rows have no area."""


@dataclass(slots=True)
class Polygons(_Batch):
    """The outlines of a batch's truths as pools: all points, and offsets into them. Rasterised only where a mask is learnt."""

    points_P2: Tensor
    """float64 (x, y) in the network's pixels: the reference rasterises in double."""
    polygon_starts: Tensor
    """int64 [Q + 1]: polygon q has points polygon_starts[q] : polygon_starts[q + 1]."""
    truth_starts: Tensor
    """int64 [N * G + 1]: truth g of image n has the polygons from entry n * G + g to the next; padded truths have none."""
    sizes_N2: Tensor | None = None
    """int64 (height, width) of the real pictures, on whose pixels bitmaps are rasterised; only where those are learnt."""


@dataclass(slots=True)
class DensePoints(_Batch):
    """Dense pose labels of a batch: T labelled truths (at least one row, which may be padding) of up to P points each."""

    points_TP2: Tensor
    """float32 (x, y) in the frame of the truth's box, whose sides are `FRAME` long."""
    parts_TP: Tensor
    """int64 part of the surface 1..parts; 0 background; -1 marks padding."""
    uv_TP2: Tensor
    """float32 (u, v) on the part, 0..1."""
    coarse_TSS: Tensor
    """uint8 coarse part of each cell of a grid over the truth's box; 0 is the background."""
    row_NG: Tensor
    """int64 row of each truth in the fields above; -1 where it has no dense label."""

    FRAME: ClassVar[float] = 256.0


@dataclass(slots=True)
class Targets(_Batch):
    """Truths of a batch. G is the batch's own maximum (at least 1), so padding never changes a result."""

    boxes_NG4: Tensor
    """float32 (x1, y1, x2, y2) in the network's pixels; padded rows are zero."""
    labels_NG: Tensor
    """int64 class 0..K-1; -1 marks padding. Padded truths match nothing."""
    polygons: Polygons | None = None
    """Outlines, where the model learns masks."""
    semantic_NHW: Tensor | None = None
    """uint8 class of each pixel where the model learns semantic maps; 255 in the padding and where nothing is to be learnt."""
    rotated_NG5: Tensor | None = None
    """float32 (cx, cy, w, h, degrees) where the model learns rotated boxes; padded rows are zero. `boxes_NG4` holds the upright
    boxes around them."""
    points: DensePoints | None = None
    """Dense pose labels, where the model learns dense poses."""
    keypoints_NGK3: Tensor | None = None
    """float32 (x, y, visibility), continuous pixels, where the model learns keypoints; visibility 0 marks padding and what is not
    labelled."""


@dataclass(slots=True)
class Detections(_Batch):
    """Results of a batch in falling score order; row d of image n is real when d < count[n].

    A detector with further heads fills optional fields [N, D, ...], zero in padded rows.
    """

    boxes_ND4: Tensor
    """float32 (x1, y1, x2, y2); zero in padded rows."""
    scores_ND: Tensor
    """float32 in 0..1; zero in padded rows."""
    labels_ND: Tensor
    """int64 class 0..K-1; -1 in padded rows."""
    count_N: Tensor
    """int64 number of real rows."""
    finite_N: Tensor
    """bool: False where the network gave a non-finite value for the image (its rows are dropped)."""
    masks_NDMM: Tensor | None = None
    """float32 probability 0..1 that a cell of the M x M grid over the box belongs to the object."""
    dense_coarse_NDCMM: Tensor | None = None
    """float32 logits of the coarse segmentation (0 background) on a grid over the box, by dense pose detectors."""
    dense_fine_NDCMM: Tensor | None = None
    """float32 logits of the surface's parts (0 background)."""
    dense_u_NDCMM: Tensor | None = None
    dense_v_NDCMM: Tensor | None = None
    """float32 surface coordinates, per part."""
    heatmaps_NDKMM: Tensor | None = None
    """float32 logits of where keypoint k lies in the M x M grid over the box; `postprocess` decodes them."""
    keypoints_NDK3: Tensor | None = None
    """float32 (x, y, score 0..1), decoded by `postprocess` in place of the heatmaps."""

    def named(self) -> dict[str, Tensor]:
        """The results that leave the network, by the names of an exported file's outputs, in their order."""
        always = {"boxes": self.boxes_ND4, "scores": self.scores_ND, "labels": self.labels_ND, "count": self.count_N}
        optional = {
            "masks": self.masks_NDMM,
            "heatmaps": self.heatmaps_NDKMM,
            "dense_coarse": self.dense_coarse_NDCMM,
            "dense_fine": self.dense_fine_NDCMM,
            "dense_u": self.dense_u_NDCMM,
            "dense_v": self.dense_v_NDCMM,
        }
        return always | {name: value for name, value in optional.items() if value is not None}

    def optional(self) -> dict[str, Tensor]:
        """The fields of further heads that are there, by field name."""
        extra = {f.name: getattr(self, f.name) for f in fields(self) if f.default is None}
        return {name: value for name, value in extra.items() if value is not None}


@dataclass(slots=True)
class SemanticMaps(_Batch):
    """A class for every pixel, as logits at a coarser stride, padding included."""

    logits_NChw: Tensor
    """float32, one channel per semantic class."""
    finite_N: Tensor
    """bool: False where the network gave a non-finite value for the image."""

    def named(self) -> dict[str, Tensor]:
        """The results that leave the network, by the names of an exported file's outputs."""
        return {"semantic": self.logits_NChw}


@dataclass(slots=True)
class Panoptic(_Batch):
    """Things and stuff of a batch, not merged yet."""

    detections: Detections
    semantic: SemanticMaps

    @property
    def finite_N(self) -> Tensor:
        """bool: False where either branch gave a non-finite value for the image."""
        return self.detections.finite_N & self.semantic.finite_N

    def named(self) -> dict[str, Tensor]:
        """The results that leave the network, by the names of an exported file's outputs, in their order."""
        return self.detections.named() | self.semantic.named()


@dataclass(slots=True)
class SegmentMaps(_Batch):
    """Panoptic segments in the pictures' own pixels; S slots per image, of which `count` are real."""

    ids_NHW: Tensor
    """int32 number of each pixel's segment, from 1; 0 where there is none."""
    thing_NS: Tensor
    """bool: segment s + 1 is a thing."""
    labels_NS: Tensor
    """int64 class of a thing 0..K-1, or semantic class of stuff; -1 is padding."""
    count_N: Tensor
    """int64."""


@dataclass(slots=True)
class RotatedDetections(_Batch):
    """Rotated boxes of a batch in falling score order; row d of image n is real when d < count[n]."""

    boxes_ND5: Tensor
    """float32 (cx, cy, w, h, degrees in [-180, 180)), counter-clockwise as one sees it; zero in padded rows."""
    scores_ND: Tensor
    """float32 in 0..1; zero in padded rows."""
    labels_ND: Tensor
    """int64 class 0..K-1; -1 in padded rows."""
    count_N: Tensor
    """int64 number of real rows."""
    finite_N: Tensor
    """bool: False where the network gave a non-finite value for the image (its rows are dropped)."""

    def named(self) -> dict[str, Tensor]:
        """The results that leave the network, by name."""
        return {"rotated": self.boxes_ND5, "scores": self.scores_ND, "labels": self.labels_ND, "count": self.count_N}


Result = Detections | SemanticMaps | Panoptic | RotatedDetections
"""What a detector gives: a type of its own for each kind of result, each with `named()`, `finite_N` and `to()`."""
