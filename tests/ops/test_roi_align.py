"""ROIAlign over levels: against torchvision per level, a slow reference, and gradcheck."""

import math

import pytest
import torch
from torch import Tensor

import ops_cuda


def pyramid(dtype: torch.dtype = torch.float32, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, channels, side, side + 2, dtype=dtype, generator=generator) for side in (16, 8, 4)]


def regions_of_interest(count: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=generator) * 60 - 5
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 50], 1)
    boxes[0], boxes[1] = torch.tensor([3.0, 3, 3, 3]), torch.tensor([200.0, 200, 240, 240])
    return boxes, torch.randint(0, 2, (count,), generator=generator), torch.randint(-1, 3, (count,), generator=generator)


SCALES = [1 / 4, 1 / 8, 1 / 16]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_each_row_reads_its_own_level(aligned: bool, ratio: int) -> None:
    from torchvision.ops import roi_align

    boxes, image, level = regions_of_interest()
    features = pyramid()
    found = ops_cuda.roi_align(features, boxes, image, level, SCALES, (7, 5), ratio, aligned)
    for m in range(len(boxes)):
        if level[m] < 0:
            assert not found[m].any(), "padding gives zeros"
            continue
        roi = torch.cat([image[m].view(1, 1).float(), boxes[m : m + 1]], 1)
        expected = roi_align(features[level[m]], roi, (7, 5), SCALES[level[m]], ratio, aligned)
        torch.testing.assert_close(found[m : m + 1], expected)


def test_against_a_slow_reference() -> None:
    """Bilinear samples averaged in double precision, written from the paper."""
    boxes, image, _ = regions_of_interest(8)
    features = [level.double() for level in pyramid()[:1]]
    level = torch.zeros(8, dtype=torch.int64)
    found = ops_cuda.roi_align(features, boxes, image, level, SCALES[:1], (3, 3), 2, True)
    for m in range(8):
        for row in range(3):
            for column in range(3):
                expected = _cell(features[0][image[m]], boxes[m].double() / 4 - 0.5, row, column)
                torch.testing.assert_close(found[m, :, row, column], expected)


def _cell(x_CHW: Tensor, box: Tensor, row: int, column: int) -> Tensor:
    x1, y1, x2, y2 = box.tolist()
    total = torch.zeros(len(x_CHW), dtype=x_CHW.dtype)
    for i in (0.25, 0.75):
        for j in (0.25, 0.75):
            total += _bilinear(x_CHW, y1 + (row + i) * (y2 - y1) / 3, x1 + (column + j) * (x2 - x1) / 3)
    return total / 4


def _bilinear(x_CHW: Tensor, y: float, x: float) -> Tensor:
    _, height, width = x_CHW.shape
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(len(x_CHW), dtype=x_CHW.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = min(math.floor(y), height - 1), min(math.floor(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = x_CHW[:, y0, x0] * (1 - (x - x0)) + x_CHW[:, y0, x1] * (x - x0)
    bottom = x_CHW[:, y1, x0] * (1 - (x - x0)) + x_CHW[:, y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck(ratio: int) -> None:
    boxes, image, level = regions_of_interest(6)
    features = [feature.requires_grad_() for feature in pyramid(torch.float64, channels=1)]

    def run(*levels: Tensor) -> Tensor:
        return ops_cuda.roi_align(levels, boxes.double(), image, level, SCALES, (2, 2), ratio, True)

    assert torch.autograd.gradcheck(run, features)


def test_no_rows_still_gives_gradients() -> None:
    features = [feature.requires_grad_() for feature in pyramid()]
    none = torch.zeros(0, dtype=torch.int64)
    regions = ops_cuda.roi_align(features, torch.zeros(0, 4), none, none, SCALES, (7, 7), 0, True)
    assert regions.shape == (0, 3, 7, 7)
    regions.sum().backward()
    assert all(feature.grad is not None and not feature.grad.any() for feature in features)


def test_pyramid_level_by_hand() -> None:
    sides = torch.tensor([0.0, 111, 112, 223, 224, 448, 5000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    assert ops_cuda.pyramid_level(boxes, 4, 2, 224, 4).tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_opcheck() -> None:
    boxes, image, level = regions_of_interest(5)
    features = [feature.requires_grad_() for feature in pyramid()]
    torch.library.opcheck(torch.ops.detectline.roi_align.default, (features, boxes, image, level, SCALES, 3, 3, 2, True))
