"""Second stage of the C4 models (Ren et al. 2015, He et al. 2016): the backbone's fifth stage runs over each region of res4.

Parameter names equal those of Detectron2 checkpoints: roi_heads.res5.<block>, roi_heads.box_predictor.
"""

from typing import Any

from torch import Tensor, nn

from pipeline.detector.box_head import BoxROIHeads, Predicted
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, compact_exported
from pipeline.detector.losses import float32
from pipeline.structures import Detections


class Res5ROIHeads(BoxROIHeads):
    """res5 over pooled regions; their mean gives classes and boxes, and the branches read the same features."""

    def __init__(self, *args: Any, res5: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.res5 = res5

    def _regions(self, features: dict[str, Tensor], boxes_NS4: Tensor, rows: Rows) -> Tensor:
        regions: Tensor = self.res5(super()._regions(features, boxes_NS4, rows))
        return regions

    def _predict(self, regions_MCSS: Tensor) -> Predicted:
        logits_MK, deltas_MC4 = self.box_predictor(regions_MCSS.mean(dim=(2, 3)))
        return Predicted(float32(logits_MK), float32(deltas_MC4))

    def _drawn_maps(self, features: dict[str, Tensor], regions_MCSS: Tensor, drawn: Regions, rows: Rows) -> list[Tensor]:
        """The positive regions' own features [N, positives, C, size, size]: made for the box head, and not made again."""
        most = self.sampler.most_positive(drawn.valid_NS.shape[1])
        if self.train_on_predicted:  # other boxes than the box head's
            first = drawn.positive(most, self.classes)
            kept = compact_exported(first.valid_NS, self.compact_rows)
            return [kept.spread(self._regions(features, first.boxes_NS4, kept))]
        return [rows.spread_first(regions_MCSS, most)]

    def _found_maps(self, features: dict[str, Tensor], found: Detections) -> list[Tensor]:
        rows = compact_exported(found.labels_ND >= 0, self.compact_rows)
        return [rows.spread(self._regions(features, found.boxes_ND4, rows))]
