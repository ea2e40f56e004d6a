"""TensorMask (Chen et al. 2019): dense sliding windows with a class, a box and a mask each, by aligned tensor bipyramids.

Parameter names are those of the public checkpoints. A window of `cells` units on level k is a square of cells * stride pixels,
and its mask has 2**k * cells cells a side, all on the finest level's grid: a large object has a large mask.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import class_focal_loss, nms, rasterise_polygons, swap_align2nat
from pipeline.detector.box_coding import BoxCoder, clip_boxes
from pipeline.detector.compact import compact, compact_exported
from pipeline.detector.detector import Detector
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import BoxLoss, Losses, finite_rows, float32
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rpn import per_anchor
from pipeline.detector.sampling import take_rows
from pipeline.detector.select import Selection
from pipeline.detector.windows import WINDOWS_PER_TRUTH, Windows, assign
from pipeline.structures import Detections, Images, Targets

OUTSIDE = -6.0
"""Logit of a mask's cells outside the picture's features."""


class TensorMaskHead(nn.Module):
    """Towers and predictions shared by the levels."""

    def __init__(
        self,
        channels: int,
        classes: int,
        cells: Sequence[int],
        *,
        convs: int,
        class_channels: int,
        box_channels: int,
        mask_channels: int,
        prior: float,
    ) -> None:
        super().__init__()
        self.classes, self.cells = classes, tuple(cells)
        self.cls_subnet, self.bbox_subnet, self.mask_subnet = (
            nn.Sequential(*[m for k in range(convs) for m in (nn.Conv2d(w if k else channels, w, 3, padding=1), nn.ReLU())])
            for w in (class_channels, box_channels, mask_channels)
        )
        self.cls_score = nn.Conv2d(class_channels, len(cells) * classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(box_channels, len(cells) * 4, 3, padding=1)
        self.mask_fuse = nn.Sequential(nn.Conv2d(mask_channels, mask_channels, 3, padding=1), nn.ReLU())
        for side in self.cells:
            self.add_module(f"mask_pred_{side:02d}", nn.Conv2d(mask_channels, side * side, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [N, A, classes] and deltas [N, A, 4] per level, by row, column, window size."""
        logits = [per_anchor(float32(self.cls_score(self.cls_subnet(x))), self.classes) for x in maps]
        return logits, [per_anchor(float32(self.bbox_pred(self.bbox_subnet(x))), 4) for x in maps]

    def aligned(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Mask features of every level on the finest level's grid: the base of the aligned bipyramid."""
        towers = [self.mask_subnet(x) for x in maps]
        finest = towers[0]
        height, width = finest.shape[-2:]
        fused = []
        for level, tower in enumerate(towers):
            if level:
                larger = functional.interpolate(tower, scale_factor=float(2**level), mode="bilinear", align_corners=False)
                tower = larger[..., :height, :width] + finest
            fused.append(self.mask_fuse(tower))
        return fused

    def natural(self, aligned_NCHW: Tensor, level: int, side: int, height: int, width: int) -> Tensor:
        """Mask logits [N, height * width, M, M] of a level's windows of `side` units, M = 2**level * side."""
        logits_NCHW = float32(self.get_submodule(f"mask_pred_{side:02d}")(aligned_NCHW))
        return swap_align2nat(logits_NCHW, side, 2**level, height, width, OUTSIDE).flatten(3)


class TensorMask(Detector):
    """One stage: every window gets a score per class, a box and a mask."""

    def __init__(
        self,
        pixels: Pixels,
        backbone: FPN,
        head: TensorMaskHead,
        windows: Windows,
        *,
        levels: Sequence[str],
        coder: BoxCoder,
        box_loss: BoxLoss,
        alpha: float,
        gamma: float,
        mask_weight: float,
        mask_inside: float,
        candidates: int,
        selection: Selection,
        mask_cells: int,
    ) -> None:
        super().__init__(pixels, backbone)
        self.head, self.windows, self.levels = head, windows, tuple(levels)
        self.coder, self.box_loss, self.selection = coder, box_loss, selection
        self.alpha, self.gamma, self.mask_weight, self.mask_inside = alpha, gamma, mask_weight, mask_inside
        self.candidates, self.mask_cells = candidates, mask_cells
        self.compact_rows = True
        """False keeps padded rows on the CPU too (for tests: results are the same)."""

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        """Focal loss over all windows; boxes and masks of the positive ones. All divided by the positives; nothing is drawn."""
        if targets.polygons is None:
            raise ValueError("TensorMask learns from polygons: targets.polygons is None")
        maps = self._maps(images)
        logits_NAC, deltas_NA4 = (torch.cat(parts, dim=1) for parts in self.head(maps))
        levels = self.windows(maps)
        windows_A4 = torch.cat([boxes for boxes, _ in levels])
        match_NA, positive_NA = assign(windows_A4, torch.cat([least for _, least in levels]), self.windows.units(levels), targets)
        total = part.divisor(positive_NA.sum())
        class_NA = take_rows(targets.labels_NG, match_NA).masked_fill(~positive_NA, -1)
        focal = class_focal_loss(logits_NAC, class_NA, self.alpha, self.gamma)
        truths_NA4 = take_rows(targets.boxes_NG4, match_NA)
        box = self.box_loss(self.coder, deltas_NA4, windows_A4.expand_as(truths_NA4), truths_NA4, positive_NA)
        mask = self._mask_loss(maps, match_NA, positive_NA, targets)
        terms = {"loss_cls": focal / total, "loss_box_reg": box / total, "loss_mask": mask * self.mask_weight / total}
        finite_N = finite_rows(logits_NAC.detach(), deltas_NA4.detach(), targets.boxes_NG4)
        return Losses(terms, finite_N, {"num_pos_windows": positive_NA.sum() / len(positive_NA)})

    def _mask_loss(self, maps: Sequence[Tensor], match_NA: Tensor, positive_NA: Tensor, targets: Targets) -> Tensor:
        """Cross-entropy of the positive windows' masks, averaged over each one's cells, summed over the windows."""
        polygons = targets.polygons
        assert polygons is not None
        images, truths = targets.labels_NG.shape
        first_N1 = torch.arange(images, device=match_NA.device).unsqueeze(1) * truths
        losses, start, sizes = [], 0, len(self.head.cells)
        for level, (aligned, x) in enumerate(zip(self.head.aligned(maps), maps, strict=True)):
            height, width = x.shape[-2:]
            stop = start + height * width * sizes
            match_NWS, positive_NWS = (values[:, start:stop].unflatten(1, (-1, sizes)) for values in (match_NA, positive_NA))
            start = stop
            for size, side in enumerate(self.head.cells):
                most = torch.sym_min(WINDOWS_PER_TRUTH * truths, height * width)
                taken_NK, index_NK = positive_NWS[..., size].to(torch.uint8).topk(most, dim=1)
                rows = compact(taken_NK > 0, self.compact_rows)
                natural_NMMW = self.head.natural(aligned, level, side, height, width)
                logits_RMM = rows.take(_windows(natural_NMMW, index_NK))
                frames_RF4 = rows.take(self.windows.frames(level, side, height, width, index_NK))
                owner_R = rows.take(first_N1 + take_rows(match_NWS[..., size], index_NK))
                valid_R = rows.valid()
                owner_R = torch.where(valid_R, owner_R, torch.full_like(owner_R, -1))
                pools = polygons.points_P2, polygons.polygon_starts, polygons.truth_starts
                inside_RMM = rasterise_polygons(*pools, frames_RF4, owner_R, logits_RMM.shape[-1]).to(logits_RMM.dtype)
                loss_RMM = functional.binary_cross_entropy_with_logits(logits_RMM, inside_RMM, reduction="none")
                loss_R = (loss_RMM * (1 + (self.mask_inside - 1) * inside_RMM)).mean(dim=(1, 2))
                losses.append(torch.where(valid_R, loss_R, torch.zeros_like(loss_R)).sum())
        return torch.stack(losses).sum()

    def detect(self, images: Images) -> Detections:
        """Detections in the network's frame with masks in the frames of their boxes, read off the windows' masks."""
        maps = self._maps(images)
        logits, deltas = self.head(maps)
        windows_A4 = torch.cat([boxes for boxes, _ in self.windows(maps)])
        scores_NF = torch.cat(logits, dim=1).flatten(1).sigmoid()
        scores_NK, index_NK = scores_NF.topk(torch.sym_min(self.candidates, scores_NF.shape[1]), dim=1)
        window_NK, label_NK = index_NK // self.head.classes, index_NK % self.head.classes
        boxes_NK4 = self.coder.decode(take_rows(torch.cat(deltas, dim=1), window_NK), windows_A4[window_NK])
        finite_NK = torch.isfinite(boxes_NK4).all(dim=-1) & torch.isfinite(scores_NK)
        boxes_NK4 = clip_boxes(boxes_NK4, images.sizes_N2)
        usable_NK = finite_NK & (scores_NK > self.selection.score)
        groups_NK = torch.where(usable_NK, label_NK, torch.full_like(label_NK, -1))
        index_ND, count_N = nms(boxes_NK4, scores_NK, groups_NK, self.head.classes, self.selection.nms, self.selection.limit)
        real_ND = torch.arange(self.selection.limit, device=count_N.device) < count_N.unsqueeze(1)
        index_ND = index_ND.clamp(min=0)
        found = Detections(
            boxes_ND4=take_rows(boxes_NK4, index_ND).masked_fill(~real_ND.unsqueeze(-1), 0),
            scores_ND=take_rows(scores_NK, index_ND).masked_fill(~real_ND, 0),
            labels_ND=take_rows(label_NK, index_ND).masked_fill(~real_ND, -1),
            count_N=count_N,
            finite_N=finite_NK.all(dim=1),
        )
        return self._with_masks(maps, found, take_rows(window_NK, index_ND), real_ND)

    def _with_masks(self, maps: Sequence[Tensor], found: Detections, window_ND: Tensor, real_ND: Tensor) -> Detections:
        """`found` with masks: each window's probabilities sampled at the cells of its detection's box, 0 beyond the window."""
        rows = compact_exported(real_ND, self.compact_rows)
        boxes_R4 = rows.take(found.boxes_ND4)
        masks_RMM = boxes_R4.new_zeros(boxes_R4.shape[0], self.mask_cells, self.mask_cells)
        start, sizes = 0, len(self.head.cells)
        for level, (aligned, x) in enumerate(zip(self.head.aligned(maps), maps, strict=True)):
            height, width = x.shape[-2:]
            count = height * width * sizes
            inside_ND = (window_ND >= start) & (window_ND < start + count)
            local_ND = (window_ND - start).clamp(min=0).minimum(torch.full_like(window_ND, 1) * (count - 1))
            start = start + count
            for size, side in enumerate(self.head.cells):
                mine_R = rows.take(inside_ND & (local_ND % sizes == size)) & rows.valid()
                cell_ND = local_ND // sizes
                natural_NMMW = self.head.natural(aligned, level, side, height, width)
                logits_RMM = rows.take(_windows(natural_NMMW, cell_ND))
                frames_R4 = rows.take(self.windows.frames(level, side, height, width, cell_ND))
                own_RMM = sampled(logits_RMM.sigmoid(), frames_R4, boxes_R4, self.mask_cells)
                masks_RMM = torch.where(mine_R.view(-1, 1, 1), own_RMM, masks_RMM)
        masks_NDMM = rows.spread(masks_RMM)
        finite_N = found.finite_N & torch.isfinite(masks_NDMM).flatten(1).all(dim=1)
        return replace(found, masks_NDMM=masks_NDMM, finite_N=finite_N)

    def _maps(self, images: Images) -> list[Tensor]:
        features = self.features(images)
        return [features[level] for level in self.levels]


def _windows(natural_NMMW: Tensor, index_NK: Tensor) -> Tensor:
    """Masks [N, K, M, M] of the windows `index`."""
    side = natural_NMMW.shape[1]
    flat_NCW = natural_NMMW.flatten(1, 2)
    taken_NCK = flat_NCW.gather(2, index_NK.unsqueeze(1).expand(-1, flat_NCW.shape[1], -1))
    return taken_NCK.transpose(1, 2).unflatten(2, (side, side))


def sampled(masks_RMM: Tensor, frames_R4: Tensor, boxes_R4: Tensor, cells: int) -> Tensor:
    """Masks [R, cells, cells] over the boxes: bilinear in the masks over `frames` at the cells' centres, zero outside."""
    share_S = (torch.arange(cells, device=boxes_R4.device, dtype=boxes_R4.dtype) + 0.5) / cells
    low_R2, side_R2 = boxes_R4[:, :2], boxes_R4[:, 2:] - boxes_R4[:, :2]
    at_RS2 = low_R2.unsqueeze(1) + side_R2.unsqueeze(1) * share_S.view(1, -1, 1)
    origin_R2, extent_R2 = frames_R4[:, :2], frames_R4[:, 2:] - frames_R4[:, :2]
    grid_RS2 = (at_RS2 - origin_R2.unsqueeze(1)) / extent_R2.unsqueeze(1) * 2 - 1
    x_RSS = grid_RS2[:, None, :, 0].expand(-1, cells, -1)
    y_RSS = grid_RS2[:, :, None, 1].expand(-1, -1, cells)
    grid_RSS2 = torch.stack([x_RSS, y_RSS], dim=-1)
    return functional.grid_sample(masks_RMM.unsqueeze(1), grid_RSS2, "bilinear", "zeros", align_corners=False).squeeze(1)
