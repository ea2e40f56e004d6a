"""Mask branch of Mask R-CNN (He et al. 2017): a small mask per region, in the frame of its box.

Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import crop_bitmaps, rasterise_polygons
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, channels_last, compact, compact_exported
from pipeline.detector.fpn import he_normal
from pipeline.detector.losses import Losses, float32
from pipeline.detector.norms import ConvNorm, Norm
from pipeline.detector.part import Part
from pipeline.detector.pooler import Given, Pooler
from pipeline.detector.sampling import take_rows
from pipeline.detector.settings.masks import MaskTargets
from pipeline.structures import Detections, Polygons, Targets


class ConvMaskHead(nn.Module):
    """3x3 convolutions, a stride-2 transposed convolution, each with ReLU, then one mask per class (`masks`, 1 if agnostic)."""

    def __init__(self, pooler: Pooler | Given, channels: int, convs: int, conv_channels: int, masks: int, norm: Norm) -> None:
        super().__init__()
        self.pooler = pooler
        self.conv_names = [f"mask_fcn{i + 1}" for i in range(convs)]
        for name in self.conv_names:
            self.add_module(name, ConvNorm(channels, conv_channels, 3, norm, relu=True))
            channels = conv_channels
        self.deconv = he_normal(nn.ConvTranspose2d(channels, conv_channels, 2, stride=2))
        self.predictor = nn.Conv2d(conv_channels, masks, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        """Cells a side of a mask."""
        return 2 * self.pooler.size

    def detect(self, features: Sequence[Tensor], boxes_ND4: Tensor, labels_ND: Tensor, rows: Rows) -> Tensor:
        """Probabilities [N, D, size, size] of each box's own class; zero in rows that are not real."""
        masks_MSS = self.logits(features, boxes_ND4, labels_ND, rows).sigmoid()
        return rows.spread(torch.where(rows.valid().view(-1, 1, 1), masks_MSS, torch.zeros_like(masks_MSS)))

    def logits(self, features: Sequence[Tensor], boxes_NS4: Tensor, labels_NS: Tensor, rows: Rows) -> Tensor:
        """[M, size, size] of each row's own class."""
        x_MCSS = channels_last(self.pooler(features, boxes_NS4, rows))
        for name in self.conv_names:
            x_MCSS = self.get_submodule(name)(x_MCSS)
        logits_MCSS = float32(self.predictor(functional.relu(self.deconv(x_MCSS))))
        own_M = rows.take(labels_NS).clamp(min=0, max=logits_MCSS.shape[1] - 1)  # class-agnostic masks have one entry
        return take_rows(logits_MCSS, own_M.unsqueeze(1)).squeeze(1)


class MaskBranch:
    """A mask head beside the box head: a `Branch`."""

    def __init__(self, head: ConvMaskHead, targets: MaskTargets) -> None:
        self.head, self.targets = head, targets

    def parts(self) -> dict[str, nn.Module]:
        return {"mask_head": self.head}

    def losses(
        self,
        maps: Sequence[Tensor],
        regions: Regions,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
        compact_rows: bool,
    ) -> Losses:
        rows = compact(regions.valid_NS, compact_rows)
        logits_MSS = self.head.logits(maps, regions.boxes_NS4, regions.classes_NS, rows)
        inside_MSS = mask_targets(self.targets, targets.polygons, regions, rows, self.head.size)
        return mask_loss(logits_MSS, inside_MSS, rows, part)

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        rows = compact_exported(found.labels_ND >= 0, compact_rows)
        masks_NDMM = self.head.detect(maps, found.boxes_ND4, found.labels_ND, rows)
        finite_N = found.finite_N & torch.isfinite(masks_NDMM).flatten(1).all(dim=1)
        return replace(found, masks_NDMM=masks_NDMM, finite_N=finite_N)


def mask_targets(kind: MaskTargets, polygons: Polygons | None, regions: Regions, rows: Rows, size: int) -> Tensor:
    """bool [M, size, size]: what the masks of the rows should be; empty in rows that are not real."""
    pools, owner_M = outlines_of(polygons, regions, rows)
    boxes_M4 = rows.take(regions.boxes_NS4)
    if kind == "polygons":
        return rasterise_polygons(*pools, boxes_M4, owner_M, size)
    return crop_bitmaps(*pools, picture_sizes(polygons, rows), boxes_M4, owner_M, size)


def outlines_of(polygons: Polygons | None, regions: Regions, rows: Rows) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The pools of a batch's outlines, and each row's owner among them: its truth, -1 where the row is not real."""
    if polygons is None:
        raise ValueError("a mask head learns from polygons: targets.polygons is None")
    owner_M = rows.take(regions.truth_NS)
    pools = polygons.points_P2, polygons.polygon_starts, polygons.truth_starts
    return pools, torch.where(rows.valid(), owner_M, torch.full_like(owner_M, -1))


def picture_sizes(polygons: Polygons | None, rows: Rows) -> Tensor:
    """(height, width) [M, 2] of each row's picture."""
    if polygons is None or polygons.sizes_N2 is None:
        raise ValueError("bitmaps are rasterised on the pictures' pixels: targets.polygons.sizes_N2 is None")
    return polygons.sizes_N2.index_select(0, rows.image())


def mask_loss(logits_MSS: Tensor, inside_MSS: Tensor, rows: Rows, part: Part) -> Losses:
    """Binary cross-entropy, averaged over the cells of the step's real rows."""
    loss_MSS = functional.binary_cross_entropy_with_logits(logits_MSS, inside_MSS.to(logits_MSS.dtype), reduction="none")
    valid_M = rows.valid()
    counted_MSS = valid_M.view(-1, 1, 1).expand_as(inside_MSS)
    total = part.divisor(valid_M.sum()) * (logits_MSS.shape[1] * logits_MSS.shape[2])
    loss = torch.where(counted_MSS, loss_MSS, torch.zeros_like(loss_MSS)).sum() / total
    finite_NS = rows.spread(torch.isfinite(logits_MSS).flatten(1).all(dim=1))
    return Losses({"loss_mask": loss}, (finite_NS | ~rows.valid_NS).all(dim=1), _counts(logits_MSS, inside_MSS, counted_MSS))


def _counts(logits_MSS: Tensor, inside_MSS: Tensor, counted_MSS: Tensor) -> dict[str, Tensor]:
    """Shares of cells on the right side of one half, and of those wrongly in or out, under the reference's names."""
    wrong_MSS = ((logits_MSS.detach() > 0) != inside_MSS) & counted_MSS
    inside, outside = (inside_MSS & counted_MSS).sum(), (~inside_MSS & counted_MSS).sum()
    return {
        "mask_rcnn/accuracy": 1 - wrong_MSS.sum() / (inside + outside).clamp(min=1),
        "mask_rcnn/false_positive": (wrong_MSS & ~inside_MSS).sum() / outside.clamp(min=1),
        "mask_rcnn/false_negative": (wrong_MSS & inside_MSS).sum() / inside.clamp(min=1),
    }
