"""torchvision's detectors in our form: the same weights give its detections on the same picture."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.peers import make_peer
from pipeline.detector.build import build_detector
from pipeline.detector.pretrained.torchvision import detector_from_torchvision
from pipeline.detector.weights import load_weights
from pipeline.structures import Images
from tests.detector.models import read_config

SIDE = 160  # p5 has 5 cells, p6 3, p7 2: torchvision's spacing of the anchors there is not the stride
CLASSES = 7


def thin(cfg: Any) -> Any:
    """The preset on a ResNet-18, whose stages are narrower, with the eps of norms that were not published."""
    return replace(cfg, backbone=replace(cfg.backbone, depth=18, res2_channels=64, norm_eps=1e-5))


def pair(kind: str) -> tuple[Any, Any]:
    peer: Any = make_peer(kind, CLASSES, SIDE, depth=18)
    cfg = thin(read_config(f"torchvision_{kind}"))
    ours: Any = build_detector(cfg, CLASSES).eval()
    load_weights(ours, detector_from_torchvision(peer.state_dict(), len(cfg.anchors.sizes[0]), CLASSES), kind)
    return ours, peer


def rows_of(boxes_D4: torch.Tensor, labels_D: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes_D4, 1000.0 * labels_D.unsqueeze(1)], dim=1)


def matches(ours_D5: torch.Tensor, theirs_D5: torch.Tensor) -> torch.Tensor:
    """For each of their rows the nearest of ours: each once. Scores that are equal up to rounding may stand in another order."""
    order = torch.cdist(theirs_D5, ours_D5, p=float("inf")).argmin(dim=1)
    assert sorted(order.tolist()) == list(range(len(ours_D5)))
    assert (order - torch.arange(len(order))).abs().max() <= 2
    return order


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet"])
def test_same_detections(kind: str) -> None:
    """Boxes within 0.01 px and scores within 1e-4, by index, on a batch of two sizes."""
    ours, peer = pair(kind)
    sizes = [(SIDE, SIDE), (SIDE - 30, SIDE)]
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    peer.transform.min_size, peer.transform.max_size = (SIDE - 30,), SIDE  # no picture is resized
    kept = {}
    if kind in ("mask_rcnn", "keypoint_rcnn"):
        predictor = peer.roi_heads.mask_predictor if kind == "mask_rcnn" else peer.roi_heads.keypoint_predictor
        predictor.register_forward_hook(lambda _m, _i, logits: kept.__setitem__("logits", logits))
    expected = []
    with torch.inference_mode():
        found = ours.detect(Images(pixels, torch.tensor(sizes)))
        peer.transform.resize = lambda image, target: (image, target)
        expected = peer([pixels[n, :, :h, :w].float() / 255 for n, (h, w) in enumerate(sizes)])
    rows = 0
    for n, theirs in enumerate(expected):
        count = int(found.count_N[n])
        assert count == len(theirs["boxes"]) > 20, "random weights were to yield many detections"
        order = matches(
            rows_of(found.boxes_ND4[n, :count], found.labels_ND[n, :count] + 1), rows_of(theirs["boxes"], theirs["labels"])
        )
        torch.testing.assert_close(found.boxes_ND4[n, order], theirs["boxes"], rtol=0, atol=0.01)
        torch.testing.assert_close(found.scores_ND[n, order], theirs["scores"], rtol=0, atol=1e-4)
        assert (found.labels_ND[n, order] + 1).tolist() == theirs["labels"].tolist()
        assert len(set(theirs["labels"].tolist())) > 2 and float(theirs["scores"].std()) > 0.01
        if kind == "mask_rcnn":
            masks = kept["logits"][torch.arange(rows, rows + count), theirs["labels"]].sigmoid()
            torch.testing.assert_close(found.masks_NDMM[n, order], masks, rtol=0, atol=1e-4)
        if kind == "keypoint_rcnn":
            logits = kept["logits"][rows : rows + count]
            torch.testing.assert_close(found.heatmaps_NDKMM[n, order], logits, rtol=0, atol=1e-4 * float(logits.std()) + 1e-4)
        rows += count
