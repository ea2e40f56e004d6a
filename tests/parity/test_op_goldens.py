"""The op goldens of the kit: every operator that exists, against numbers of the reference implementation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ops_cuda
from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.box_coding import LARGEST_LOG_RATIO, BoxCoder, clip_boxes
from pipeline.detector.rpn import select_proposals
from pipeline.detector.select import Selection

pytestmark = pytest.mark.parity

MATCHERS = {
    "rpn": ((0.3, 0.7), (0, -1, 1), True),
    "roi": ((0.5,), (0, 1), False),
    "retina": ((0.4, 0.5), (0, -1, 1), True),
    "c2": ((0.6,), (0, 1), False),
}


@pytest.fixture(scope="module")
def golden(ops_file: Path) -> Any:
    arrays = np.load(ops_file)
    return lambda key: torch.from_numpy(arrays[key])


def same(actual: Tensor, expected: Tensor, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def test_box_iou(golden: Any) -> None:
    a, b = golden("iou/a"), golden("iou/b")
    same(ops_cuda.box_iou(a, b), golden("iou/iou"), atol=1e-6)
    same(ops_cuda.box_iou(a, b, "ioa"), golden("iou/ioa"), atol=1e-6)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_box_losses(golden: Any, kind: Any) -> None:
    predicted = golden("loss/box_pred").requires_grad_()
    loss = 1 - ops_cuda.aligned_box_iou(predicted, golden("loss/box_tgt"), kind)
    loss.sum().backward()
    same(loss.detach(), golden(f"loss/{kind}"))
    same(predicted.grad, golden(f"loss/{kind}_grad"), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms(golden: Any, threshold: float) -> None:
    boxes, scores, ids = golden("nms/boxes"), golden("nms/scores"), golden("nms/ids")
    expected = golden(f"nms/keep_{threshold}")
    index, count = ops_cuda.nms(boxes[None], scores[None], ids[None], int(ids.max()) + 1, threshold, len(boxes))
    assert index[0, : int(count)].tolist() == expected.tolist()
    assert (index[0, int(count) :] == -1).all()


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(7, 7), (5, 3)])
def test_roi_align(golden: Any, aligned: int, ratio: int, size: tuple[int, int]) -> None:
    key = f"roi_align/aligned{aligned}_sr{ratio}_{size[0]}x{size[1]}"
    features, rois = golden("roi_align/x").requires_grad_(), golden("roi_align/rois")
    level = torch.zeros(len(rois), dtype=torch.int64)
    image, scale = rois[:, 0].long(), float(golden("roi_align/scale"))
    regions = ops_cuda.roi_align([features], rois[:, 1:], image, level, [scale], size, ratio, bool(aligned))
    regions.backward(golden(f"{key}/upstream"))
    same(regions.detach(), golden(f"{key}/y"))
    same(features.grad, golden(f"{key}/dx"))


@pytest.mark.parametrize("matcher", MATCHERS)
def test_matcher(golden: Any, matcher: str) -> None:
    iou = golden("matcher/iou")[None]
    match, label = ops_cuda.match_ious(iou, torch.ones(iou.shape[:2], dtype=torch.bool), *MATCHERS[matcher])
    assert match[0].tolist() == golden(f"matcher/{matcher}_match").tolist()
    assert label[0].tolist() == golden(f"matcher/{matcher}_label").tolist()


@pytest.mark.parametrize("number", range(8))
def test_mask_targets(golden: Any, number: int) -> None:
    points, box = golden(f"poly/{number}/xy").reshape(-1, 2), golden(f"poly/{number}/box").float()
    pools = points, torch.tensor([0, len(points)]), torch.tensor([0, 1])
    for size in (14, 28):
        mask = ops_cuda.rasterise_polygons(*pools, box[None], torch.tensor([0]), size)
        assert torch.equal(mask[0], golden(f"poly/{number}/mask{size}"))


def test_pasted_masks(golden: Any) -> None:
    height, width = golden("paste/hw").tolist()
    assert torch.equal(ops_cuda.paste_masks(golden("paste/masks"), golden("paste/boxes"), height, width), golden("paste/out_0.5"))


@pytest.mark.parametrize(("alpha", "gamma"), [("0.25", "2.0"), ("-1", "2.0"), ("0.5", "0.0")])
def test_focal_loss(golden: Any, alpha: str, gamma: str) -> None:
    loss = ops_cuda.sigmoid_focal_loss(golden("loss/logits"), golden("loss/targets"), float(alpha), float(gamma))
    same(loss, golden(f"loss/focal_a{alpha}_g{gamma}"), atol=1e-6)


@pytest.mark.parametrize(("name", "weights"), [("w1", (1, 1, 1, 1)), ("w10", (10, 10, 5, 5)), ("w30", (30, 30, 15, 15))])
def test_box_coding(golden: Any, name: str, weights: tuple[float, float, float, float]) -> None:
    coder, source = BoxCoder(weights), golden("b2b/src")
    same(coder.encode(source, golden("b2b/tgt")), golden(f"b2b/{name}/enc"))
    decoded = coder.decode(golden("b2b/deltas").unflatten(1, (2, 4)), source.unsqueeze(1))
    same(decoded.flatten(1), golden(f"b2b/{name}/dec"), atol=1e-4)
    assert pytest.approx(float(golden("b2b/scale_clamp"))) == LARGEST_LOG_RATIO


@pytest.mark.parametrize("beta", ["0.0000", "0.1111", "0.5000", "1.0000"])
def test_smooth_l1(golden: Any, beta: str) -> None:
    deltas = golden("b2b/deltas")
    exact = {"0.1111": 1 / 9}.get(beta, float(beta))
    loss = torch.nn.functional.smooth_l1_loss(deltas, deltas.flip(0), reduction="none", beta=exact)
    same(loss, golden(f"loss/smooth_l1_beta{beta}"))


def test_anchors(golden: Any) -> None:
    maps = [torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3)]
    octaves = [[s * 2 ** (i / 3) for i in range(3)] for s in (32, 64)]
    ratios = [[0.5, 1.0, 2.0]]
    for key, sizes, level_ratios, strides, offset in (
        ("fpn", [[32], [64]], ratios, [4, 8], 0.0),
        ("retina", octaves, ratios, [8, 16], 0.0),
        ("offset05", [[32], [64]], [[1.0]], [4, 8], 0.5),
    ):
        for number, boxes in enumerate(AnchorGenerator(sizes, level_ratios, strides, offset)(maps)):
            same(boxes, golden(f"anchor/{key}/{number}"), atol=1e-4)


def test_pyramid_level(golden: Any) -> None:
    assert ops_cuda.pyramid_level(golden("levels/boxes"), 4, 2, 224, 4).tolist() == golden("levels/level_minus2").tolist()


def test_proposal_selection(golden: Any) -> None:
    """Two levels, a NaN row and an infinite one among them."""
    boxes, logits, level = [], [], []
    for number in range(2):
        best, index = golden(f"rpn_sel/logits{number}").topk(min(100, golden(f"rpn_sel/logits{number}").shape[1]), dim=1)
        boxes.append(golden(f"rpn_sel/props{number}")[:, index[0]])
        logits.append(best)
        level.append(torch.full_like(index, number))
    joined = torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(level, 1)
    found = select_proposals(*joined, 2, torch.tensor([[200, 300]]), 0.7, 60, 0.0)
    count = int(found.valid_NP.sum())
    assert not found.finite_N.any()
    same(found.boxes_NP4[0, :count], golden("rpn_sel/boxes"))
    same(found.logits_NP[0, :count], golden("rpn_sel/scores"))


def test_detection_selection(golden: Any) -> None:
    boxes, scores = golden("box_inf/boxes").unflatten(1, (3, 4))[None], golden("box_inf/scores")[None]
    finite = torch.isfinite(boxes).flatten(2).all(2) & torch.isfinite(scores).all(2)
    clipped = clip_boxes(boxes, torch.tensor([[200, 300]]))
    found = Selection(0.05, 0.5, 50).per_class(clipped, scores[..., :-1], finite, finite.all(1))
    count = int(found.count_N[0])
    same(found.boxes_ND4[0, :count], golden("box_inf/out_boxes"))
    same(found.scores_ND[0, :count], golden("box_inf/out_scores"))
    assert found.labels_ND[0, :count].tolist() == golden("box_inf/out_classes").tolist()


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_deform_conv2d(golden: Any, case: str) -> None:
    names = ("x", "offset", "w", "mask")
    x, offset, weight, mask = leaves = [golden(f"deform/{case}/{name}").requires_grad_() for name in names]
    stride, padding, dilation = golden(f"deform/{case}/stride_pad_dil").tolist()
    same(ops_cuda.deform_conv2d(x, offset, weight, None, stride, padding, dilation, 1).detach(), golden(f"deform/{case}/v1_y"))
    modulated = ops_cuda.deform_conv2d(x, offset, weight, mask, stride, padding, dilation, 1)
    same(modulated.detach(), golden(f"deform/{case}/v2_y_torchvision"))
    modulated.sum().backward()
    for name, leaf in zip(names, leaves, strict=True):
        same(leaf.grad, golden(f"deform/{case}/v2_d{name}_torchvision_sumgrad"), atol=1e-4)


def test_keypoint_decoding(golden: Any) -> None:
    decoded = ops_cuda.decode_keypoints(golden("kp/maps"), golden("kp/boxes"))
    same(decoded, golden("kp/decoded"), atol=1e-4)


@pytest.mark.parametrize("size", [14, 28])
def test_crops_of_bitmaps(golden: Any, size: int) -> None:
    points = [golden(f"poly/{i}/xy").reshape(-1, 2) for i in range(8)]
    assert all(np.array_equal(full_bitmap(p, 60, 64), golden("bitmask/masks")[i].numpy()) for i, p in enumerate(points)), (
        "the bitmaps are those of the polygons"
    )
    starts = torch.tensor(np.cumsum([0, *map(len, points)]))
    sizes = torch.tensor([[60, 64]] * 8)
    masks = ops_cuda.crop_bitmaps(
        torch.cat(points), starts, torch.arange(9), sizes, golden("bitmask/boxes"), torch.arange(8), size
    )
    assert torch.equal(masks, golden(f"bitmask/crop{size}"))


def full_bitmap(points: Tensor, height: int, width: int) -> np.ndarray:
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    at = torch.stack([x, y], -1).reshape(1, -1, 2)
    pools = points, torch.tensor([0, len(points)]), torch.tensor([0, 1])
    return (
        ops_cuda.sample_bitmaps(*pools, torch.tensor([[height, width]]), torch.tensor([0]), at).reshape(height, width).numpy()
        >= 0.5
    )
