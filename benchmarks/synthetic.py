"""Pictures of noise with truths for every task: what a step costs is measured on them, nothing is learnt from them."""

from typing import Any

import torch
from torch import Tensor

from pipeline.detector.config import takes_proposals
from pipeline.structures import DensePoints, Images, Polygons, Targets

DENSE_POINTS = 100
"""Labelled points of each object's dense pose; COCO's have 100 to 150."""
SMALLEST, GROWTH = 0.08, 0.3
"""A box's sides: the first, and up to the second more, as shares of the picture's."""


def synthetic_batch(
    cfg: Any, classes: int, semantic_classes: int, height: int, width: int, divisor: int, batch: int, truths: int = 8
) -> tuple[Images, Targets]:
    """`batch` pictures of `height` x `width` px padded to `divisor`, with `truths` rectangles each and what else `cfg` learns."""
    generator = torch.Generator().manual_seed(0)
    high, wide = (-(-side // divisor) * divisor for side in (height, width))
    pixels_N3HW = torch.randint(0, 256, (batch, 3, high, wide), dtype=torch.uint8, generator=generator)
    extent_2 = torch.tensor([width, height], dtype=torch.float32)
    boxes_NG4 = (_boxes(batch, truths, generator) * extent_2.repeat(2)).round()
    sizes_N2 = torch.tensor([[height, width]]).repeat(batch, 1)
    labels_NG = torch.randint(0, classes, (batch, truths), generator=generator)
    images, targets = Images(pixels_N3HW, sizes_N2), Targets(boxes_NG4, labels_NG, _rectangles(boxes_NG4, sizes_N2))
    if takes_proposals(cfg):
        images.proposals_NP4 = _boxes(batch, cfg.proposals.train, generator) * extent_2.repeat(2)
    if "rotated" in cfg.tasks:
        angles_NG1 = 180 * torch.rand(batch, truths, 1, generator=generator) - 90
        corner, opposite = boxes_NG4[..., :2], boxes_NG4[..., 2:]
        targets.rotated_NG5 = torch.cat([(corner + opposite) / 2, opposite - corner, angles_NG1], dim=2)
    if "semantic" in cfg.tasks:
        map_NHW = torch.randint(0, semantic_classes, (batch, high // 8 + 1, wide // 8 + 1), generator=generator)
        map_NHW = map_NHW.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, :high, :wide]
        targets.semantic_NHW = map_NHW.to(torch.uint8).contiguous()
    if "keypoints" in cfg.tasks:
        share_NGK2 = torch.rand(batch, truths, cfg.roi.keypoint.keypoints, 2, generator=generator)
        corner, opposite = boxes_NG4[..., None, :2], boxes_NG4[..., None, 2:]
        points_NGK2 = corner + share_NGK2 * (opposite - corner)
        targets.keypoints_NGK3 = torch.cat([points_NGK2, torch.full_like(points_NGK2[..., :1], 2.0)], dim=3)
    if "densepose" in cfg.tasks:
        targets.points = _dense_points(batch, truths, cfg.roi.densepose.parts, generator)
    return images, targets


def _boxes(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """[batch, count, 4] as shares of the picture, inside it."""
    corner = torch.rand(batch, count, 2, generator=generator) * (1 - SMALLEST - GROWTH)
    return torch.cat([corner, corner + SMALLEST + GROWTH * torch.rand(batch, count, 2, generator=generator)], dim=2)


def _rectangles(boxes_NG4: Tensor, sizes_N2: Tensor) -> Polygons:
    """The boxes as polygons, one per truth."""
    x1, y1, x2, y2 = boxes_NG4.flatten(0, 1).double().unbind(1)
    points_P2 = torch.stack([torch.stack(corner, 1) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], 1).flatten(0, 1)
    starts = torch.arange(len(x1) + 1)
    return Polygons(points_P2, starts * 4, starts, sizes_N2)


def _dense_points(batch: int, truths: int, parts: int, generator: torch.Generator) -> DensePoints:
    """Points all over each truth's box, of every part, and coarse parts at random."""
    rows, shape = batch * truths, (batch * truths, DENSE_POINTS)
    coarse_TSS = torch.randint(0, 2, (rows, 16, 16), generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2)
    return DensePoints(
        points_TP2=torch.rand(*shape, 2, generator=generator) * DensePoints.FRAME,
        parts_TP=torch.randint(1, parts + 1, shape, generator=generator),
        uv_TP2=torch.rand(*shape, 2, generator=generator),
        coarse_TSS=coarse_TSS.to(torch.uint8),
        row_NG=torch.arange(rows).view(batch, truths),
    )
