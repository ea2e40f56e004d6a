"""Keypoint branch of Keypoint R-CNN (He et al. 2017): one heatmap per keypoint and region, in the frame of its box.

Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, compact, compact_exported
from pipeline.detector.fpn import he_normal
from pipeline.detector.losses import Losses, float32
from pipeline.detector.part import Part
from pipeline.detector.pooler import Pooler
from pipeline.detector.sampling import take_rows
from pipeline.structures import Detections, Targets


class KeypointHead(nn.Module):
    """3x3 convolutions with ReLU, a stride-2 transposed convolution to one map per keypoint, then bilinear upsampling by two."""

    def __init__(self, pooler: Pooler, channels: int, conv_channels: Sequence[int], keypoints: int) -> None:
        super().__init__()
        self.pooler, self.keypoints = pooler, keypoints
        self.conv_names = [f"conv_fcn{i + 1}" for i in range(len(conv_channels))]
        for name, width in zip(self.conv_names, conv_channels, strict=True):
            self.add_module(name, he_normal(nn.Conv2d(channels, width, 3, padding=1)))
            channels = width
        self.score_lowres = he_normal(nn.ConvTranspose2d(channels, keypoints, 4, stride=2, padding=1))

    @property
    def size(self) -> int:
        """Cells a side of a heatmap."""
        return 4 * self.pooler.size

    def forward(self, features: Sequence[Tensor], boxes_NS4: Tensor, rows: Rows) -> Tensor:
        """Logits [M, K, size, size] of the rows."""
        x_MCSS = self.pooler(features, boxes_NS4, rows)
        for name in self.conv_names:
            x_MCSS = functional.relu(self.get_submodule(name)(x_MCSS))
        low_MKSS = self.score_lowres(x_MCSS)
        return float32(functional.interpolate(low_MKSS, scale_factor=2.0, mode="bilinear", align_corners=False))


class KeypointBranch:
    """A keypoint head beside the box head: a `Branch`.

    The loss is a cross-entropy over a heatmap's cells per visible keypoint, divided by the number of them in the step; or, when
    given, by `sampled` times the images: the keypoints of all positive regions that an image's sample can hold.
    """

    def __init__(self, head: KeypointHead, sampled: float | None, loss_weight: float) -> None:
        self.head, self.sampled, self.loss_weight = head, sampled, loss_weight

    def parts(self) -> dict[str, nn.Module]:
        return {"keypoint_head": self.head}

    def losses(
        self,
        maps: Sequence[Tensor],
        regions: Regions,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
        compact_rows: bool,
    ) -> Losses:
        keypoints_NSK3 = self._own_keypoints(targets, regions)
        shows_NS = has_visible(keypoints_NSK3, regions.boxes_NS4) & regions.valid_NS
        rows = compact(shows_NS, compact_rows)
        logits_MKSS = self.head(maps, regions.boxes_NS4, rows)
        cell_MK, learnt_MK = heatmap_cells(rows.take(keypoints_NSK3), rows.take(regions.boxes_NS4), self.head.size)
        learnt_MK = learnt_MK & rows.valid().unsqueeze(1)
        loss_R = functional.cross_entropy(logits_MKSS.flatten(0, 1).flatten(1), cell_MK.flatten(), reduction="none")
        loss = torch.where(learnt_MK.flatten(), loss_R, torch.zeros_like(loss_R)).sum()
        divisor = part.divisor(learnt_MK.sum()) if self.sampled is None else self.sampled * len(shows_NS)
        finite_NS = rows.spread(torch.isfinite(logits_MKSS).flatten(1).all(dim=1))
        counts = {"keypoint_head/num_fg_samples": shows_NS.sum() / len(shows_NS)}
        return Losses({"loss_keypoint": loss * self.loss_weight / divisor}, (finite_NS | ~shows_NS).all(dim=1), counts)

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        real_ND = found.labels_ND >= 0
        rows = compact_exported(real_ND, compact_rows)
        heatmaps_NDKMM = rows.spread(self.head(maps, found.boxes_ND4, rows))
        heatmaps_NDKMM = heatmaps_NDKMM.masked_fill(~real_ND[..., None, None, None], 0)
        finite_N = found.finite_N & torch.isfinite(heatmaps_NDKMM).flatten(1).all(dim=1)
        return replace(found, heatmaps_NDKMM=heatmaps_NDKMM, finite_N=finite_N)

    def _own_keypoints(self, targets: Targets, regions: Regions) -> Tensor:
        """Keypoints [N, S, K, 3] of each region's truth; those that its class does not have are not visible."""
        given_NGK3 = targets.keypoints_NGK3
        if given_NGK3 is None:
            raise ValueError("a keypoint head learns from keypoints: targets.keypoints_NGK3 is None")
        missing = self.head.keypoints - given_NGK3.shape[2]
        if missing < 0:
            raise ValueError(f"the truths have {given_NGK3.shape[2]} keypoints, the keypoint head {self.head.keypoints}")
        images, truths = given_NGK3.shape[:2]
        first_N1 = torch.arange(images, device=given_NGK3.device).unsqueeze(1) * truths
        return take_rows(functional.pad(given_NGK3, (0, 0, 0, missing)), regions.truth_NS - first_N1)


def has_visible(keypoints_NSK3: Tensor, boxes_NS4: Tensor) -> Tensor:
    """bool [N, S]: a labelled keypoint lies in the box, or on its edge."""
    at, corners = keypoints_NSK3[..., :2], boxes_NS4.unsqueeze(2)
    inside_NSK = ((at >= corners[..., :2]) & (at <= corners[..., 2:])).all(dim=-1)
    return (inside_NSK & (keypoints_NSK3[..., 2] >= 1)).any(dim=2)


def heatmap_cells(keypoints_MK3: Tensor, boxes_M4: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The cell (row * size + column) [M, K] of each keypoint in its box's size x size grid, and where there is one.

    The right and the bottom edge belong to the last cell. A keypoint that is not visible or lies outside has cell 0.
    """
    corner_M12, far_M12 = boxes_M4[:, None, :2], boxes_M4[:, None, 2:]
    at_MK2, visible_MK = keypoints_MK3[..., :2], keypoints_MK3[..., 2] > 0
    place_MK2 = ((at_MK2 - corner_M12) * (size / (far_M12 - corner_M12))).floor()
    place_MK2 = torch.where(at_MK2 == far_M12, torch.full_like(place_MK2, size - 1), place_MK2)
    valid_MK = ((place_MK2 >= 0) & (place_MK2 < size)).all(dim=-1) & visible_MK
    column_MK, row_MK = torch.where(valid_MK.unsqueeze(-1), place_MK2, torch.zeros_like(place_MK2)).to(torch.int64).unbind(-1)
    return row_MK * size + column_MK, valid_MK
