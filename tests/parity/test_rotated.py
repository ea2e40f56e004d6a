"""The kit's goldens of rotated boxes: IoU, NMS, ROIAlign, deltas, anchors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ops_cuda
from pipeline.detector.rotated.anchors import RotatedAnchorGenerator
from pipeline.detector.rotated.geometry import RotatedBoxCoder

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def golden(ops_file: Path) -> Any:
    arrays = np.load(ops_file)
    return lambda key: torch.from_numpy(arrays[key])


def same(actual: Any, expected: Any, atol: float) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-5)


def test_rotated_iou(golden: Any) -> None:
    same(ops_cuda.rotated_box_iou(golden("riou/a"), golden("riou/b")), golden("riou/iou"), 1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_rotated_nms(golden: Any, threshold: float) -> None:
    boxes, scores, ids = golden("rnms/boxes")[None], golden("rnms/scores")[None], golden("rnms/ids")[None]
    for key, groups in (("keep", torch.zeros_like(ids)), ("batched_keep", ids)):
        expected = golden(f"rnms/{key}_{threshold}").tolist()
        index, count = ops_cuda.nms_rotated(boxes, scores, groups, int(ids.max()) + 1, threshold, boxes.shape[1])
        assert index[0, : int(count)].tolist() == expected


@pytest.mark.parametrize("ratio", [0, 2])
def test_rotated_roi_align(golden: Any, ratio: int) -> None:
    features, rois = golden("roi_align/x").requires_grad_(), golden("roi_align_rotated/rois")
    level, scale = torch.zeros(len(rois), dtype=torch.int64), float(golden("roi_align/scale"))
    regions = ops_cuda.roi_align_rotated([features], rois[:, 1:], rois[:, 0].long(), level, [scale], (5, 5), ratio)
    regions.backward(golden(f"roi_align_rotated/sr{ratio}/upstream"))
    same(regions.detach(), golden(f"roi_align_rotated/sr{ratio}/y"), 1e-5)
    same(features.grad, golden(f"roi_align_rotated/sr{ratio}/dx"), 1e-5)


def test_rotated_box_coding(golden: Any) -> None:
    coder, source = RotatedBoxCoder((10, 10, 5, 5, 1)), golden("b2b_rot/src")
    same(coder.encode(source, golden("b2b_rot/tgt")), golden("b2b_rot/enc"), 1e-5)
    decoded = coder.decode(golden("b2b_rot/deltas").unflatten(1, (2, 5)), source.unsqueeze(1))
    same(decoded[:, 0], golden("b2b_rot/dec"), 1e-4)


def test_rotated_anchors(golden: Any) -> None:
    maps = [torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3)]
    generator = RotatedAnchorGenerator([[32], [64]], [[0.5, 1.0]], [[-90, 0, 45]], [4, 8], 0.0)
    for number, boxes in enumerate(generator(maps)):
        same(boxes, golden(f"anchor/rot/{number}"), 1e-4)
