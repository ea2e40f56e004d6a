"""ROIAlign of rotated boxes: against ROIAlign where they are upright, a slow reference, and a turned picture; gradcheck."""

import math

import pytest
import torch
from torch import Tensor

import ops_cuda
from pipeline.predict.raw_heads import roi_align_rotated as host_align
from tests.ops.test_roi_align import SCALES, _bilinear, pyramid


def regions_of_interest(count: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(count, 5, generator=generator)
    boxes = torch.cat([u[:, :2] * 70 - 5, u[:, 2:4] * 50, u[:, 4:] * 400 - 200], dim=1)
    boxes[0, 2:4], boxes[1, :2], boxes[2, 2:4] = 0.0, 300.0, 0.5
    return boxes, torch.randint(0, 2, (count,), generator=generator), torch.randint(-1, 3, (count,), generator=generator)


@pytest.mark.parametrize("ratio", [0, 2])
def test_upright_boxes_read_what_roi_align_reads(ratio: int) -> None:
    boxes, image, level = regions_of_interest()
    boxes[:, 4] = 0
    upright = torch.cat([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], dim=1)
    found = ops_cuda.roi_align_rotated(pyramid(), boxes, image, level, SCALES, (7, 5), ratio)
    torch.testing.assert_close(
        found, ops_cuda.roi_align(pyramid(), upright, image, level, SCALES, (7, 5), ratio, True), atol=1e-5, rtol=1e-5
    )
    assert not found[level < 0].any()


@pytest.mark.parametrize("ratio", [0, 2])
def test_against_a_slow_reference(ratio: int) -> None:
    boxes, image, level = regions_of_interest()
    features, size = [x.double() for x in pyramid()], (3, 4)
    found = ops_cuda.roi_align_rotated(features, boxes.double(), image, level, SCALES, size, ratio)
    for m in range(len(boxes)):
        if level[m] < 0:
            assert not found[m].any()
            continue
        x, y, w, h = (boxes[m, :4].double() * SCALES[level[m]]).tolist()
        c, s = math.cos(math.radians(float(boxes[m, 4]))), math.sin(math.radians(float(boxes[m, 4])))
        rows, columns = (ratio or math.ceil(h / size[0])), (ratio or math.ceil(w / size[1]))
        for i in range(size[0]):
            for j in range(size[1]):
                total = torch.zeros(3, dtype=torch.float64)
                for p in range(rows):
                    for q in range(columns):
                        v = ((i + (p + 0.5) / rows) / size[0] - 0.5) * h
                        u = ((j + (q + 0.5) / columns) / size[1] - 0.5) * w
                        total += _bilinear(features[level[m]][image[m]], y - 0.5 + v * c - u * s, x - 0.5 + v * s + u * c)
                torch.testing.assert_close(found[m, :, i, j], total / max(rows * columns, 1))


def test_a_box_turned_with_the_picture_reads_the_same() -> None:
    """A quarter turn counter-clockwise of picture and box: (x, y) -> (y, W - x)."""
    feature = pyramid()[0]
    width = feature.shape[3]
    turned = feature.rot90(1, (2, 3))
    boxes = torch.tensor([[8.0, 7, 6, 4, 20], [5, 9, 3, 7, -40]])
    moved = torch.stack([boxes[:, 1], width - boxes[:, 0], boxes[:, 2], boxes[:, 3], boxes[:, 4] + 90], dim=1)
    rows = torch.zeros(2, dtype=torch.int64)
    found = [ops_cuda.roi_align_rotated([x], b, rows, rows, [1.0], (4, 4), 2) for x, b in ((feature, boxes), (turned, moved))]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
def test_the_numpy_host_reads_the_same(ratio: int) -> None:
    boxes, _, _ = regions_of_interest()
    pooler = {"size": 5, "scales": SCALES, "lowest": 2, "sampling_ratio": ratio, "canonical_size": 24, "canonical_level": 3}
    flat = torch.cat([torch.zeros(12, 2), boxes[:, 2:4]], dim=1)
    level = ops_cuda.pyramid_level(flat, 3, 2, 24, 3)
    features, image = pyramid(), torch.zeros(12, dtype=torch.int64)
    expected = ops_cuda.roi_align_rotated(features, boxes, image, level, SCALES, (5, 5), ratio)
    found = host_align([x[0].numpy() for x in features], boxes.numpy(), pooler)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert len(set(level.tolist())) > 1


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck(ratio: int) -> None:
    boxes, image, level = regions_of_interest(6)
    features = [feature.requires_grad_() for feature in pyramid(torch.float64, channels=1)]

    def run(*levels: Tensor) -> Tensor:
        return ops_cuda.roi_align_rotated(levels, boxes.double(), image, level, SCALES, (2, 2), ratio)

    assert torch.autograd.gradcheck(run, features)


def test_no_rows_still_gives_gradients() -> None:
    features = [feature.requires_grad_() for feature in pyramid()]
    none = torch.zeros(0, dtype=torch.int64)
    regions = ops_cuda.roi_align_rotated(features, torch.zeros(0, 5), none, none, SCALES, (7, 7), 0)
    assert regions.shape == (0, 3, 7, 7)
    regions.sum().backward()
    assert all(feature.grad is not None and not feature.grad.any() for feature in features)


def test_opcheck() -> None:
    boxes, image, level = regions_of_interest(5)
    features = [feature.requires_grad_() for feature in pyramid()]
    torch.library.opcheck(torch.ops.detectline.roi_align_rotated.default, (features, boxes, image, level, SCALES, 3, 3, 2))
