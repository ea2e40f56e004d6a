"""The host's part of a rotated detector's raw-heads file: rotated NMS, ROIAlign and selection in numpy. Never imports torch.

`pipeline.deploy.raw_heads` says what the file's two functions take and give.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.predict.postprocess import RawDetections
from pipeline.predict.rotated import Boxes, clipped, rotated_iou

METADATA = "rotated_raw_heads"
"""Name of the settings in the file's metadata."""
CANDIDATES = ("candidates", "candidate_logits", "candidate_levels")
REGION_INPUTS = ("regions", "proposals")
REGIONS = ("region_scores", "region_boxes")
CHUNK = 256
"""Regions that go through the second function at a time."""
Run = Callable[[list[str], dict[str, NDArray[Any]]], list[NDArray[Any]]]
"""An ONNX session's `run`."""


@dataclass(frozen=True, slots=True)
class RawHeads:
    """What the file's metadata asks of the host."""

    proposals: Mapping[str, Any]
    pooler: Mapping[str, Any] | None
    """None where the file is a proposal network."""
    select: Mapping[str, Any]
    divisor: int

    @classmethod
    def read(cls, text: str) -> Self:
        """From the metadata's text."""
        settings = orjson.loads(text)
        return cls(settings["proposals"], settings.get("pooler"), settings.get("select", {}), settings["divisor"])

    def __call__(self, run: Run, pixels_N3HW: NDArray[np.uint8], sizes_N2: NDArray[np.int64]) -> RawDetections:
        """Detections of a batch in the network's frame."""
        pooler = self.pooler
        levels = [] if pooler is None else list(pooler["levels"])
        feed: dict[str, NDArray[Any]] = {"pixels": pixels_N3HW, "sizes": sizes_N2}
        boxes_NK5, logits_NK, level_NK, *maps = run([*CANDIDATES, *levels], feed | self._no_regions())
        limit = self.proposals["limit"]
        kept = [nms_rotated(boxes_NK5[n], logits_NK[n], level_NK[n], self.proposals["nms"], limit) for n in range(len(boxes_NK5))]
        if pooler is None:
            scores_NK = _sigmoid(logits_NK)
            zero_NK = np.minimum(level_NK, 0)
            return _padded([(boxes_NK5[n][k], scores_NK[n][k], zero_NK[n][k]) for n, k in enumerate(kept)], limit)
        found = []
        for n, rows in enumerate(kept):
            proposals_P5 = boxes_NK5[n][rows]
            regions = roi_align_rotated([level[n] for level in maps], proposals_P5, pooler)
            scores_PC, boxes_PC5 = self._second(run, regions, proposals_P5)
            found.append(self._selected(scores_PC, clipped(boxes_PC5, (int(sizes_N2[n, 0]), int(sizes_N2[n, 1])))))
        return _padded(found, self.select["limit"])

    def _no_regions(self) -> dict[str, NDArray[Any]]:
        """One region of nothing for the function that is not asked."""
        if self.pooler is None:
            return {}
        shape = (1, self.pooler["channels"], self.pooler["size"], self.pooler["size"])
        return dict(zip(REGION_INPUTS, (np.zeros(shape, np.float32), np.ones((1, 5), np.float32)), strict=True))

    def _second(self, run: Run, regions: NDArray[np.float32], proposals_P5: Boxes) -> tuple[NDArray[np.float32], Boxes]:
        """Scores and boxes of all regions; the first function gets the smallest black picture."""
        side = 2 * self.divisor
        black: dict[str, NDArray[Any]] = {"pixels": np.zeros((1, 3, side, side), np.uint8), "sizes": np.zeros((1, 2), np.int64)}
        parts = []
        for start in range(0, max(len(regions), 1), CHUNK):
            given = regions[start : start + CHUNK], proposals_P5[start : start + CHUNK]
            feed = dict(zip(REGION_INPUTS, given, strict=True)) if len(regions) else self._no_regions()
            asked: dict[str, NDArray[Any]] = {**black, **feed}
            parts.append(run(list(REGIONS), asked))
        scores_PC, boxes_PC5 = (np.concatenate(values)[: len(regions)] for values in zip(*parts, strict=True))
        return scores_PC, boxes_PC5

    def _selected(self, scores_PC: NDArray[np.float32], boxes_PC5: Boxes) -> tuple[Boxes, NDArray[Any], NDArray[np.int64]]:
        """The detections of one picture."""
        regions, classes = scores_PC.shape
        boxes_F5 = np.broadcast_to(boxes_PC5, (regions, classes, 5)).reshape(-1, 5)
        scores_F, labels_F = scores_PC.reshape(-1), np.tile(np.arange(classes), regions)
        finite_P = np.isfinite(boxes_PC5).all(axis=(1, 2)) & np.isfinite(scores_PC).all(axis=1)
        usable_F = (scores_F > np.float32(self.select["score"])) & np.repeat(finite_P, classes)
        groups_F = np.where(usable_F, labels_F, -1)
        rows = nms_rotated(boxes_F5, scores_F, groups_F, self.select["nms"], self.select["limit"])
        return boxes_F5[rows], scores_F[rows], labels_F[rows]


def nms_rotated(
    boxes_K5: Boxes, scores_K: NDArray[np.float32], groups_K: NDArray[np.int64], threshold: float, limit: int
) -> NDArray[np.int64]:
    """Kept rows by falling score: greedy within each group, equal scores keep the earlier row; group -1 is left out."""
    real = np.flatnonzero(groups_K >= 0)
    waiting = real[np.argsort(-scores_K[real], kind="stable")]
    kept: list[int] = []
    while len(waiting) and len(kept) < limit:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        rivals = np.flatnonzero(groups_K[waiting] == groups_K[best])
        overlap = rotated_iou(boxes_K5[best], boxes_K5[waiting[rivals]])
        waiting = np.delete(waiting, rivals[overlap > threshold])
    return np.array(kept, np.int64)


def roi_align_rotated(maps: list[NDArray[np.float32]], boxes_P5: Boxes, pooler: Mapping[str, Any]) -> NDArray[np.float32]:
    """Region features [P, C, size, size] of boxes of one picture from its maps [C, H, W], each from its own level."""
    size = int(pooler["size"])
    regions = np.zeros((len(boxes_P5), maps[0].shape[0], size, size), np.float32)
    root_P = np.sqrt(np.maximum(boxes_P5[:, 2] * boxes_P5[:, 3], np.float32(0)))
    exact_P = np.float32(pooler["canonical_level"]) + np.log2(root_P / np.float32(pooler["canonical_size"]) + np.float32(1e-8))
    level_P = np.clip(np.floor(exact_P), pooler["lowest"], pooler["lowest"] + len(maps) - 1).astype(int) - pooler["lowest"]
    for p, (box_5, level) in enumerate(zip(boxes_P5, level_P.tolist(), strict=True)):
        scaled_4 = box_5[:4] * np.float32(pooler["scales"][level])
        regions[p] = _region(maps[level], scaled_4, float(box_5[4]), size, int(pooler["sampling_ratio"]))
    return regions


def _region(map_CHW: NDArray[np.float32], box_4: Boxes, degrees: float, size: int, ratio: int) -> NDArray[np.float32]:
    """One region: bilinear samples of the turned rectangle (cx, cy, w, h in the map's pixels), averaged in cells."""
    channels, height, width = map_CHW.shape
    w, h = box_4[2:]
    rows, columns = (ratio or int(np.ceil(side / np.float32(size))) for side in (h, w))
    if rows <= 0 or columns <= 0:
        return np.zeros((channels, size, size), np.float32)
    v = ((np.arange(size * rows) + 0.5) / (size * rows) - 0.5)[:, None] * float(h)
    u = ((np.arange(size * columns) + 0.5) / (size * columns) - 0.5)[None, :] * float(w)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = float(box_4[0]) - 0.5 + v * sine + u * cosine, float(box_4[1]) - 0.5 + v * cosine - u * sine
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    low, far = (y - top) * inside, (x - left) * inside
    high, near = inside - low, inside - far
    values = map_CHW[:, top, left] * (high * near) + map_CHW[:, top, right] * (high * far)
    values += map_CHW[:, bottom, left] * (low * near) + map_CHW[:, bottom, right] * (low * far)
    cells = values.reshape(channels, size, rows, size, columns)
    region: NDArray[np.float32] = cells.mean(axis=(2, 4)).astype(np.float32)
    return region


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return values


def _padded(found: list[tuple[Boxes, NDArray[Any], NDArray[np.int64]]], limit: int) -> RawDetections:
    """One batch of all pictures' detections."""
    boxes, scores = np.zeros((len(found), limit, 5), np.float32), np.zeros((len(found), limit), np.float32)
    labels = np.full((len(found), limit), -1, np.int64)
    for n, (own_boxes, own_scores, own_labels) in enumerate(found):
        count = len(own_scores)
        boxes[n, :count], scores[n, :count], labels[n, :count] = own_boxes, own_scores, own_labels
    counts = np.array([len(own_scores) for _, own_scores, _ in found], np.int64)
    return {"rotated": boxes, "scores": scores, "labels": labels, "count": counts}
