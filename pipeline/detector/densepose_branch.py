"""Dense pose beside the box head (Güler et al. 2018): a `Branch` from its parts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ops_cuda import aligned_box_iou, rasterise_polygons
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, compact, compact_exported
from pipeline.detector.densepose_head import ConvDenseHead, DenseDecoder, DenseMaps, DensePredictor
from pipeline.detector.densepose_loss import coarse_loss, coarse_targets, part_loss, sample_points, uv_losses
from pipeline.detector.losses import Losses
from pipeline.detector.part import Part
from pipeline.detector.pooler import Pooler
from pipeline.structures import Detections, Targets


@dataclass(frozen=True, slots=True)
class DenseRules:
    """How dense poses are learnt; the meanings are those of `settings.densepose.DensePoseConfig`."""

    least_iou: float
    coarse_from_masks: bool
    uv_epsilon: float
    coarse_weight: float
    part_weight: float
    point_weight: float


class DensePoseBranch:
    """Decoder (or none), pooler, head and predictor over positive regions in training and over found boxes afterwards."""

    def __init__(
        self, decoder: DenseDecoder | None, pooler: Pooler, head: ConvDenseHead, predictor: DensePredictor, rules: DenseRules
    ) -> None:
        self.decoder, self.pooler, self.head, self.predictor, self.rules = decoder, pooler, head, predictor, rules

    def parts(self) -> dict[str, nn.Module]:
        named: dict[str, nn.Module] = {"densepose_head": self.head, "densepose_predictor": self.predictor}
        return named if self.decoder is None else {"decoder": self.decoder} | named

    def losses(
        self,
        maps: Sequence[Tensor],
        regions: Regions,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
        compact_rows: bool,
    ) -> Losses:
        """Losses under the reference's names. Like the reference's, all are zero when no point of the step lies in a region.

        U and V are sums over points; they are scaled to the whole step's, however its pictures are dealt out.
        """
        if targets.points is None:
            raise ValueError("a dense pose head learns from annotated points: targets.points is None")
        if self.rules.coarse_from_masks and targets.polygons is None:
            raise ValueError("a coarse segmentation that learns from masks needs outlines: targets.polygons is None")
        row_NS = targets.points.row_NG.flatten()[regions.truth_NS]
        close_NS = aligned_box_iou(regions.truths_NS4, regions.boxes_NS4) > self.rules.least_iou
        labelled_NS = (row_NS >= 0) if not self.rules.coarse_from_masks else torch.ones_like(close_NS)
        rows = compact(regions.valid_NS & close_NS & labelled_NS, compact_rows)
        found = self._maps(maps, regions.boxes_NS4, rows)
        valid_M, row_M = rows.valid(), rows.take(row_NS)
        boxes_M4, truths_M4 = rows.take(regions.boxes_NS4), rows.take(regions.truths_NS4)
        size = found.u.shape[-1]
        points = sample_points(targets.points, row_M, truths_M4, boxes_M4, valid_M, size)
        sums = uv_losses(found, points, self.predictor.uv_confidence, self.rules.uv_epsilon)
        terms = {name: value * (self.rules.point_weight * part.processes * part.passes) for name, value in sums.items()}
        inside = part.divisor(points.inside_MP.sum())
        terms["loss_densepose_I"] = part_loss(found.fine, points) / inside * self.rules.part_weight
        if self.rules.coarse_from_masks:
            target_MSS, counted_M = self._outlines(targets, regions, rows, size), valid_M
        else:
            target_MSS = coarse_targets(targets.points, row_M, truths_M4, boxes_M4, size)
            counted_M = valid_M & (row_M >= 0)
        if found.coarse.shape[1] == 2:
            target_MSS = (target_MSS > 0).to(torch.int64)
        coarse = coarse_loss(found.coarse, target_MSS, counted_M) / part.divisor(counted_M.sum())
        terms["loss_densepose_S"] = coarse * self.rules.coarse_weight
        learns = part.sum(points.surface_MP.sum()) > 0
        terms = {name: torch.where(learns, value, value * 0) for name, value in terms.items()}
        return Losses(terms, (rows.spread(found.finite()) | ~rows.valid_NS).all(dim=1))

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        rows = compact_exported(found.labels_ND >= 0, compact_rows)
        dense = self._maps(maps, found.boxes_ND4, rows)
        real_M = rows.valid().view(-1, 1, 1, 1)
        coarse, fine, u, v = (
            rows.spread(torch.where(real_M, values, torch.zeros_like(values)))
            for values in (dense.coarse, dense.fine, dense.u, dense.v)
        )
        finite_N = torch.stack([torch.isfinite(values).flatten(1).all(dim=1) for values in (coarse, fine, u, v)]).all(dim=0)
        return replace(
            found,
            dense_coarse_NDCMM=coarse,
            dense_fine_NDCMM=fine,
            dense_u_NDCMM=u,
            dense_v_NDCMM=v,
            finite_N=found.finite_N & finite_N,
        )

    def _maps(self, maps: Sequence[Tensor], boxes_NS4: Tensor, rows: Rows) -> DenseMaps:
        features = maps if self.decoder is None else [self.decoder(maps)]
        dense: DenseMaps = self.predictor(self.head(self.pooler(features, boxes_NS4, rows)))
        return dense

    def _outlines(self, targets: Targets, regions: Regions, rows: Rows, size: int) -> Tensor:
        """1 inside the objects' outlines: int64 [M, size, size] in the regions' frames."""
        assert targets.polygons is not None
        valid_M, pools = rows.valid(), targets.polygons
        owner_M = torch.where(valid_M, rows.take(regions.truth_NS), torch.full_like(valid_M, -1, dtype=torch.int64))
        boxes_M4 = rows.take(regions.boxes_NS4)
        inside = rasterise_polygons(pools.points_P2, pools.polygon_starts, pools.truth_starts, boxes_M4, owner_M, size)
        return inside.to(torch.int64)
