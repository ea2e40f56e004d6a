"""Keypoint decoding against torch's own bicubic interpolation, map by map at full size."""

import math

import pytest
import torch
from torch.nn import functional

from ops_cuda import decode_keypoints


def slowly(map_MM: torch.Tensor, box_4: torch.Tensor) -> list[float]:
    width, height = ((box_4[2:] - box_4[:2]).clamp(min=1)).tolist()
    shape = (math.ceil(height), math.ceil(width))
    full = functional.interpolate(map_MM[None, None], shape, mode="bicubic", align_corners=False)[0, 0]
    y, x = divmod(int(full.argmax()), shape[1])
    score = 1 / (map_MM - full.max()).exp().sum()
    at = (x + 0.5) * width / shape[1] + float(box_4[0]), (y + 0.5) * height / shape[0] + float(box_4[1])
    return [*at, float(full.max()), float(score)]


@pytest.mark.parametrize("cells", [7, 14, 56])
def test_equals_full_interpolation(cells: int) -> None:
    generator = torch.Generator().manual_seed(cells)
    maps = torch.randn(6, 3, cells, cells, generator=generator) * 3
    boxes = torch.tensor(
        [[3.2, 4.1, 90.7, 33.3], [0, 0, 0.4, 0.2], [5, 5, 6, 200.5], [1, 1, 15, 15], [9.5, 2, 10.6, 3.4], [0, 0, 56, 56]]
    )
    found = decode_keypoints(maps, boxes)
    expected = torch.tensor([[slowly(one, box) for one in of_box] for of_box, box in zip(maps, boxes, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_equal_values_keep_the_first_point_and_broken_rows_are_zero() -> None:
    maps = torch.zeros(3, 1, 8, 8)
    maps[1, 0, 2, 3] = float("nan")
    boxes = torch.tensor([[2.0, 3.0, 12.0, 23.0], [0.0, 0.0, 5.0, 5.0], [0.0, float("inf"), 5.0, 5.0]])
    found = decode_keypoints(maps, boxes)
    torch.testing.assert_close(found[0, 0], torch.tensor([2.5, 3.5, 0.0, 1 / 64]))
    assert not found[1:].any()
    assert decode_keypoints(maps[:0], boxes[:0]).shape == (0, 1, 4)
