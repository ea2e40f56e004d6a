"""The raw-heads file of a rotated detector: what comes before rotated NMS and ROIAlign, for which ONNX has no operator.

The file is two functions in one, that share nothing but the file; its metadata says what the host has to do between them.
1. `pixels`, `sizes` -> `candidates` [N, K, 5] (the best boxes of every level, decoded and clipped), `candidate_logits` [N, K],
   `candidate_levels` [N, K] (-1: not usable), and the pyramid `p2`, `p3` ... that the second stage reads.
   Then on the host: rotated NMS within levels, the best `proposals.limit`, rotated ROIAlign from the pyramid.
2. `regions` [M, C, S, S], `proposals` [M, 5] -> `region_scores` [M, classes], `region_boxes` [M, classes or 1, 5], decoded.
   Then on the host: clipping, score threshold, rotated NMS within classes.
A rotated proposal network has the first function alone. `pipeline.predict.raw_heads` is the host's part, in numpy.
"""

import json
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.detector.compact import compact
from pipeline.detector.detector import Detector
from pipeline.detector.rotated.detectors import RotatedFasterRCNN, RotatedProposalNetwork
from pipeline.detector.rotated.stages import RotatedRPN
from pipeline.predict.raw_heads import CANDIDATES, METADATA, REGION_INPUTS, REGIONS
from pipeline.structures import Images

Rotated = RotatedFasterRCNN | RotatedProposalNetwork


class RawHeads(nn.Module):
    """The two functions as one graph. Its parts are the detector's own, so that tensors keep their parameters' names."""

    def __init__(self, detector: Rotated) -> None:
        super().__init__()
        for name, part in detector.named_children():
            self.add_module(name, part)
        self._detector = [detector]  # in a list: a module here would be a second path to every parameter

    def forward(
        self, pixels_N3HW: Tensor, sizes_N2: Tensor, regions_MCSS: Tensor | None = None, proposals_M5: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The outputs, in the order of `names`."""
        detector = self._detector[0]
        features = detector.features(Images(pixels_N3HW, sizes_N2))
        first = candidates(detector.proposal_generator, features, sizes_N2)
        if not isinstance(detector, RotatedFasterRCNN) or regions_MCSS is None or proposals_M5 is None:
            return first
        heads = detector.roi_heads
        logits_MK, deltas_MC5 = heads.box_predictor(heads.box_head(regions_MCSS))
        boxes_MC5 = heads.coder.decode(deltas_MC5, proposals_M5.unsqueeze(1))
        return (*first, *(features[level] for level in heads.levels), logits_MK.softmax(dim=1)[:, :-1], boxes_MC5)


def candidates(rpn: RotatedRPN, features: dict[str, Tensor], sizes_N2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, logits and levels of the best anchors, before NMS."""
    maps = [features[level] for level in rpn.levels]
    logits, deltas = rpn.rpn_head(maps)
    boxes_NK5, logits_NK, level_NK = rpn.best(rpn.anchors(maps), logits, deltas, rpn.keep_test[0])
    boxes_NK5, level_NK, _ = rpn.usable(boxes_NK5, logits_NK, level_NK, sizes_N2)
    return boxes_NK5, logits_NK, level_NK


def input_names(detector: Rotated) -> list[str]:
    """What the graph takes beside pixels and sizes."""
    return list(REGION_INPUTS) if isinstance(detector, RotatedFasterRCNN) else []


def output_names(detector: Rotated) -> list[str]:
    """What the graph gives."""
    return [*CANDIDATES, *detector.roi_heads.levels, *REGIONS] if isinstance(detector, RotatedFasterRCNN) else list(CANDIDATES)


def traced_regions(detector: Rotated, rows: int = 3) -> tuple[Tensor, ...]:
    """Arguments of the second function to trace it with."""
    if not isinstance(detector, RotatedFasterRCNN):
        return ()
    cells: int = detector.roi_heads.pooler.size  # type: ignore[assignment]  # torch types a module's attributes in general
    regions_MCSS = torch.zeros(rows, detector.backbone.channels, cells, cells)
    return regions_MCSS, torch.tensor([[8.0, 8, 4, 4, 0]]).expand(rows, 5).clone()


def metadata(detector: Rotated) -> dict[str, str]:
    """What the host has to know, as the file's metadata."""
    rpn = detector.proposal_generator
    settings: dict[str, object] = {
        "proposals": {"levels": len(rpn.levels), "nms": rpn.nms_threshold, "limit": rpn.keep_test[1]},
        "divisor": detector.divisor,
    }
    if isinstance(detector, RotatedFasterRCNN):
        heads, pooler = detector.roi_heads, detector.roi_heads.pooler
        settings["pooler"] = {
            "levels": list(heads.levels),
            "scales": pooler.scales,
            "lowest": pooler.lowest,
            "channels": detector.backbone.channels,
            "size": pooler.size,
            "sampling_ratio": pooler.sampling_ratio,
            "canonical_size": pooler.canonical_size,
            "canonical_level": pooler.canonical_level,
        }
        select = heads.selection
        settings["select"] = {"score": select.score, "nms": select.nms, "limit": select.limit}
    return {METADATA: json.dumps(settings, sort_keys=True)}


def region_feed(detector: Detector) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """From one picture's feed of the first function to a feed of both: with the regions that the detector itself looks at."""

    def complete(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not isinstance(detector, RotatedFasterRCNN):
            return feed
        with torch.no_grad():
            images = Images(torch.from_numpy(feed["pixels"]), torch.from_numpy(feed["sizes"]))
            features = detector.eval().features(images)
            proposals = detector.proposal_generator.detect(features, images.sizes_N2)
            rows, heads = compact(proposals.valid_NP), detector.roi_heads
            regions_MCSS = heads.pooler([features[level] for level in heads.levels], proposals.boxes_NP4, rows)
        boxes_M5 = rows.take(proposals.boxes_NP4)
        return feed | dict(zip(REGION_INPUTS, (regions_MCSS.numpy(), boxes_M5.numpy()), strict=True))

    return complete
