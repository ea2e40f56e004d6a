"""Mask branch of Mask R-CNN (He et al. 2017): a small mask per region, in the frame of its box.

Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import rasterise_polygons
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, channels_last, compact, compact_exported
from pipeline.detector.losses import Losses, float32
from pipeline.detector.norms import ConvNorm, Norm
from pipeline.detector.part import Part
from pipeline.detector.pooler import Given, Pooler
from pipeline.detector.sampling import take_rows
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
        self.deconv = _he(nn.ConvTranspose2d(channels, conv_channels, 2, stride=2))
        self.predictor = nn.Conv2d(conv_channels, masks, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        """Cells a side of a mask."""
        return 2 * self.pooler.size

    def detect(self, features: Sequence[Tensor], boxes_ND4: Tensor, labels_ND: Tensor, rows: Rows) -> Tensor:
        """Probabilities [N, D, size, size] of each box's own class; zero in rows that are not real."""
        masks_MSS = self._logits(features, boxes_ND4, labels_ND, rows).sigmoid()
        return rows.spread(torch.where(rows.valid().view(-1, 1, 1), masks_MSS, torch.zeros_like(masks_MSS)))

    def losses(
        self,
        features: Sequence[Tensor],
        boxes_NS4: Tensor,
        labels_NS: Tensor,
        truth_NS: Tensor,
        polygons: Polygons,
        rows: Rows,
        part: Part,
    ) -> Losses:
        """Binary cross-entropy of each region's own class, averaged over the cells of the step's real rows.

        `truth` is the index of each region's truth among the N * G of the batch.
        """
        logits_MSS = self._logits(features, boxes_NS4, labels_NS, rows)
        valid_M = rows.valid()
        owner_M = torch.where(valid_M, rows.take(truth_NS), torch.full_like(valid_M, -1, dtype=torch.int64))
        inside_MSS = rasterise_polygons(
            polygons.points_P2, polygons.polygon_starts, polygons.truth_starts, rows.take(boxes_NS4), owner_M, self.size
        )
        loss_MSS = functional.binary_cross_entropy_with_logits(logits_MSS, inside_MSS.to(logits_MSS.dtype), reduction="none")
        counted_MSS = valid_M.view(-1, 1, 1).expand_as(inside_MSS)
        total = part.divisor(valid_M.sum()) * self.size**2
        loss = torch.where(counted_MSS, loss_MSS, torch.zeros_like(loss_MSS)).sum() / total
        finite_NS = rows.spread(torch.isfinite(logits_MSS).flatten(1).all(dim=1))
        return Losses({"loss_mask": loss}, (finite_NS | ~rows.valid_NS).all(dim=1), _counts(logits_MSS, inside_MSS, counted_MSS))

    def _logits(self, features: Sequence[Tensor], boxes_NS4: Tensor, labels_NS: Tensor, rows: Rows) -> Tensor:
        """[M, size, size] of each row's own class."""
        x_MCSS = channels_last(self.pooler(features, boxes_NS4, rows))
        for name in self.conv_names:
            x_MCSS = self.get_submodule(name)(x_MCSS)
        logits_MCSS = float32(self.predictor(functional.relu(self.deconv(x_MCSS))))
        own_M = rows.take(labels_NS).clamp(min=0, max=logits_MCSS.shape[1] - 1)  # class-agnostic masks have one entry
        return take_rows(logits_MCSS, own_M.unsqueeze(1)).squeeze(1)


class MaskBranch:
    """A mask head beside the box head: a `Branch`."""

    def __init__(self, head: ConvMaskHead) -> None:
        self.head = head

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
        if targets.polygons is None:
            raise ValueError("a mask head learns from polygons: targets.polygons is None")
        rows = compact(regions.valid_NS, compact_rows)
        return self.head.losses(maps, regions.boxes_NS4, regions.classes_NS, regions.truth_NS, targets.polygons, rows, part)

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        rows = compact_exported(found.labels_ND >= 0, compact_rows)
        masks_NDMM = self.head.detect(maps, found.boxes_ND4, found.labels_ND, rows)
        finite_N = found.finite_N & torch.isfinite(masks_NDMM).flatten(1).all(dim=1)
        return replace(found, masks_NDMM=masks_NDMM, finite_N=finite_N)


def _counts(logits_MSS: Tensor, inside_MSS: Tensor, counted_MSS: Tensor) -> dict[str, Tensor]:
    """Shares of cells on the right side of one half, and of those wrongly in or out, under the reference's names."""
    wrong_MSS = ((logits_MSS.detach() > 0) != inside_MSS) & counted_MSS
    inside, outside = (inside_MSS & counted_MSS).sum(), (~inside_MSS & counted_MSS).sum()
    return {
        "mask_rcnn/accuracy": 1 - wrong_MSS.sum() / (inside + outside).clamp(min=1),
        "mask_rcnn/false_positive": (wrong_MSS & ~inside_MSS).sum() / outside.clamp(min=1),
        "mask_rcnn/false_negative": (wrong_MSS & inside_MSS).sum() / inside.clamp(min=1),
    }


def _he(layer: nn.ConvTranspose2d) -> nn.Module:
    """The layer with the reference's initial values: normal of variance 2 / fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
