"""PointRend for instances (Kirillov et al. 2020): a coarse mask per region, refined at its least certain points.

Parameter names equal those of the PointRend project's Detectron2 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import point_sample, sample_bitmaps
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, compact, compact_exported
from pipeline.detector.fpn import he_normal, xavier
from pipeline.detector.losses import Losses, float32
from pipeline.detector.mask_head import mask_loss, mask_targets, outlines_of, picture_sizes
from pipeline.detector.part import Part
from pipeline.detector.sampling import take_rows
from pipeline.detector.settings.masks import MaskTargets
from pipeline.structures import Detections, Targets


class CoarseMaskHead(nn.Module):
    """A region's grid of features halved by a convolution, then fully connected layers to a small mask per class."""

    def __init__(self, channels: int, side: int, conv_channels: int, fcs: int, fc_channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        self.conv_names = []
        if channels > conv_channels:
            self.reduce_channel_dim_conv = he_normal(nn.Conv2d(channels, conv_channels, 1))
            self.conv_names.append("reduce_channel_dim_conv")
            channels = conv_channels
        self.reduce_spatial_dim_conv = he_normal(nn.Conv2d(channels, conv_channels, 2, stride=2))
        self.conv_names.append("reduce_spatial_dim_conv")
        width = conv_channels * (side // 2) ** 2
        self.fc_names = [f"fc{i + 1}" for i in range(fcs)]
        for name in self.fc_names:
            self.add_module(name, xavier(nn.Linear(width, fc_channels)))
            width = fc_channels
        self.prediction = nn.Linear(width, classes * size * size)
        nn.init.normal_(self.prediction.weight, std=0.001)
        nn.init.zeros_(self.prediction.bias)

    def forward(self, x_MCSS: Tensor) -> Tensor:
        """Logits [M, classes, size, size]."""
        for name in self.conv_names:
            x_MCSS = functional.relu(self.get_submodule(name)(x_MCSS))
        x_MW = x_MCSS.flatten(1)
        for name in self.fc_names:
            x_MW = functional.relu(self.get_submodule(name)(x_MW))
        return self.prediction(x_MW).unflatten(1, (self.classes, self.size, self.size))  # type: ignore[no-any-return]


class PointHead(nn.Module):
    """Layers that see one point at a time: its fine features, and the coarse logits of all classes there."""

    def __init__(self, channels: int, coarse: int, width: int, layers: int, coarse_each_layer: bool, masks: int) -> None:
        super().__init__()
        self.coarse_each_layer = coarse_each_layer
        given = channels + coarse
        self.fc_names = [f"fc{i + 1}" for i in range(layers)]
        for name in self.fc_names:
            self.add_module(name, he_normal(nn.Conv1d(given, width, 1)))
            given = width + (coarse if coarse_each_layer else 0)
        self.predictor = nn.Conv1d(given, masks, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, fine_MCP: Tensor, coarse_MKP: Tensor) -> Tensor:
        """Logits [M, masks, P]."""
        x_MCP = torch.cat([fine_MCP, coarse_MKP], dim=1)
        for name in self.fc_names:
            x_MCP = functional.relu(self.get_submodule(name)(x_MCP))
            if self.coarse_each_layer:
                x_MCP = torch.cat([x_MCP, coarse_MKP], dim=1)
        return self.predictor(x_MCP)  # type: ignore[no-any-return]


class PointRendHead(nn.Module):
    """The coarse head and, where there is one, the point head: what checkpoints hold below `mask_head`."""

    def __init__(self, coarse_head: CoarseMaskHead, point_head: PointHead | None) -> None:
        super().__init__()
        self.coarse_head = coarse_head
        self.point_head = point_head


@dataclass(frozen=True, slots=True)
class Reading:
    """Which features are read, as places among the second stage's levels, and how many image pixels theirs are wide."""

    levels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, maps: Sequence[Tensor], at_MP2: Tensor, image_M: Tensor) -> Tensor:
        """[M, C, P] at points in the network's pixels; the channels of several levels are joined."""
        read = [point_sample(maps[n], at_MP2 / stride, image_M) for n, stride in zip(self.levels, self.strides, strict=True)]
        return read[0] if len(read) == 1 else torch.cat(read, dim=1)


@dataclass(frozen=True, slots=True)
class PointRules:
    """How points are chosen."""

    train_points: int
    oversample: float
    important: float
    steps: int
    points: int

    def choose(self, coarse_MSS: Tensor, rows: Rows, generator: torch.Generator | None, part: Part) -> Tensor:
        """Points [M, P, 2] of 0..1 to learn from: the least certain of many drawn, and some drawn anew."""
        drawn_MO2 = part.points(rows, int(self.train_points * self.oversample), generator)
        certainty_MO = read_at(coarse_MSS.unsqueeze(1), drawn_MO2).squeeze(1).abs()
        important = int(self.important * self.train_points)
        least_MI = certainty_MO.topk(important, dim=1, largest=False).indices
        return torch.cat([take_rows(drawn_MO2, least_MI), part.points(rows, self.train_points - important, generator)], dim=1)

    def start(self, size: int) -> tuple[int, int]:
        """Cells a side that are predicted at once, and how many steps are left then, for a coarse mask of `size`."""
        steps = self.steps
        while steps and 4 * size * size <= self.points:
            size, steps = 2 * size, steps - 1
        return size, steps


class PointRendBranch:
    """A PointRend head beside the box head: a `Branch`. Without point rules its results are the coarse masks."""

    def __init__(
        self,
        head: PointRendHead,
        targets: MaskTargets,
        side: int,
        coarse: Reading,
        fine: Reading | None,
        rules: PointRules | None,
    ) -> None:
        self.head, self.targets, self.side = head, targets, side
        self.coarse, self.fine, self.rules = coarse, fine, rules

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
        boxes_M4, classes_M = rows.take(regions.boxes_NS4), rows.take(regions.classes_NS)
        coarse_MKSS = self._coarse(maps, boxes_M4, rows)
        coarse_MSS = _own(coarse_MKSS, classes_M)
        inside_MSS = mask_targets(self.targets, targets.polygons, regions, rows, self.head.coarse_head.size)
        losses = mask_loss(coarse_MSS, inside_MSS, rows, part)
        if self.rules is None:
            return losses
        points_MP2 = self.rules.choose(coarse_MSS.detach(), rows, generator, part)
        logits_MP = self._at_points(maps, coarse_MKSS, boxes_M4, classes_M, points_MP2, rows)
        pools, owner_M = outlines_of(targets.polygons, regions, rows)
        wanted_MP = sample_bitmaps(*pools, picture_sizes(targets.polygons, rows), owner_M, in_picture(points_MP2, boxes_M4))
        return losses.joined(_point_loss(logits_MP, wanted_MP, rows, part))

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        rows = compact_exported(found.labels_ND >= 0, compact_rows)
        boxes_M4, classes_M = rows.take(found.boxes_ND4), rows.take(found.labels_ND)
        coarse_MKSS = self._coarse(maps, boxes_M4, rows)
        logits_MSS = _own(coarse_MKSS, classes_M)
        if self.rules is not None:
            logits_MSS = self._refined(self.rules, maps, coarse_MKSS, boxes_M4, classes_M, rows)
        masks_MSS = torch.where(rows.valid().view(-1, 1, 1), logits_MSS.sigmoid(), torch.zeros_like(logits_MSS))
        masks_NDMM = rows.spread(masks_MSS)
        finite_N = found.finite_N & torch.isfinite(masks_NDMM).flatten(1).all(dim=1)
        return replace(found, masks_NDMM=masks_NDMM, finite_N=finite_N)

    def _coarse(self, maps: Sequence[Tensor], boxes_M4: Tensor, rows: Rows) -> Tensor:
        """Logits [M, classes, size, size], from features at a regular grid over each box."""
        grid_MP2 = grid_points(self.side, boxes_M4).expand(len(boxes_M4), -1, -1)
        x_MCP = self.coarse(maps, in_picture(grid_MP2, boxes_M4), rows.image())
        return float32(self.head.coarse_head(x_MCP.unflatten(2, (self.side, self.side))))

    def _at_points(
        self, maps: Sequence[Tensor], coarse_MKSS: Tensor, boxes_M4: Tensor, classes_M: Tensor, points_MP2: Tensor, rows: Rows
    ) -> Tensor:
        """The point head's logits [M, P] of each row's own class at points of its box."""
        assert self.head.point_head is not None and self.fine is not None
        fine_MCP = self.fine(maps, in_picture(points_MP2, boxes_M4), rows.image())
        return _own(float32(self.head.point_head(fine_MCP, read_at(coarse_MKSS, points_MP2))), classes_M)

    def _refined(
        self, rules: PointRules, maps: Sequence[Tensor], coarse_MKSS: Tensor, boxes_M4: Tensor, classes_M: Tensor, rows: Rows
    ) -> Tensor:
        """Logits [M, side, side]: a first grid predicted whole, then doubled step by step with its least certain cells anew."""
        side, steps = rules.start(self.head.coarse_head.size)
        grid_MP2 = grid_points(side, boxes_M4).expand(len(boxes_M4), -1, -1)
        logits_MSS = self._at_points(maps, coarse_MKSS, boxes_M4, classes_M, grid_MP2, rows).unflatten(1, (side, side))
        for _ in range(steps):
            side *= 2
            logits_M1SS = functional.interpolate(logits_MSS.unsqueeze(1), scale_factor=2.0, mode="bilinear", align_corners=False)
            logits_MC = logits_M1SS.flatten(1)
            cell_MP = logits_MC.detach().abs().topk(min(side * side, rules.points), dim=1, largest=False).indices
            centre_MP2 = (torch.stack([cell_MP % side, cell_MP // side], dim=-1).to(boxes_M4.dtype) + 0.5) / side
            anew_MP = self._at_points(maps, coarse_MKSS, boxes_M4, classes_M, centre_MP2, rows)
            logits_MSS = logits_MC.scatter(1, cell_MP, anew_MP).unflatten(1, (side, side))
        return logits_MSS


def grid_points(side: int, like: Tensor) -> Tensor:
    """Centres (x, y) [1, side * side, 2] of a regular grid over the unit square, row by row."""
    centre_S = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    y_SS, x_SS = torch.meshgrid(centre_S, centre_S, indexing="ij")
    return torch.stack([x_SS, y_SS], dim=-1).flatten(0, 1).unsqueeze(0)


def in_picture(points_MP2: Tensor, boxes_M4: Tensor) -> Tensor:
    """Points of the boxes' unit squares in the boxes' pixels."""
    return points_MP2 * (boxes_M4[:, None, 2:] - boxes_M4[:, None, :2]) + boxes_M4[:, None, :2]


def read_at(maps_MCSS: Tensor, points_MP2: Tensor) -> Tensor:
    """Each row's own maps [M, C, P] at points of the unit square: bilinear, zero outside."""
    return functional.grid_sample(maps_MCSS, points_MP2.unsqueeze(2) * 2 - 1, align_corners=False).squeeze(3)


def _own(values_MKx: Tensor, classes_M: Tensor) -> Tensor:
    """[M, ...] of each row's class; class-agnostic values have one entry."""
    own_M1 = classes_M.clamp(min=0, max=values_MKx.shape[1] - 1).unsqueeze(1)
    return take_rows(values_MKx, own_M1).squeeze(1)


def _point_loss(logits_MP: Tensor, wanted_MP: Tensor, rows: Rows, part: Part) -> Losses:
    """Binary cross-entropy against the soft labels, averaged over the points of the step's real rows."""
    valid_M = rows.valid()
    loss_MP = functional.binary_cross_entropy_with_logits(logits_MP, wanted_MP, reduction="none")
    loss = torch.where(valid_M.unsqueeze(1), loss_MP, torch.zeros_like(loss_MP)).sum()
    loss = loss / (part.divisor(valid_M.sum()) * logits_MP.shape[1])
    # As the reference counts: only a point wholly inside is one that should be in.
    right_MP = ((logits_MP.detach() > 0) == (wanted_MP >= 1)) & valid_M.unsqueeze(1)
    counts = {"point/accuracy": right_MP.sum() / (valid_M.sum() * logits_MP.shape[1]).clamp(min=1)}
    finite_NS = rows.spread(torch.isfinite(logits_MP).all(dim=1))
    return Losses({"loss_mask_point": loss}, (finite_NS | ~rows.valid_NS).all(dim=1), counts)
