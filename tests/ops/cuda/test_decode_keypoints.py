"""The kernel of keypoint decoding against the twin: points and values bit for bit, scores but for the order of their sum."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run

pytestmark = ON_DEVICE


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.equal(found[..., :3], wanted[..., :3])
    torch.testing.assert_close(found[..., 3], wanted[..., 3], rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize(("cells", "dtype"), [(7, torch.float32), *((3, dtype) for dtype in HALF_TYPES[1:])])
def test_equals_the_twin(cells: int, dtype: torch.dtype) -> None:
    """Boxes larger and smaller than their maps, of one pixel and less, of the map's own size, and inverted."""
    maps = (torch.randn(6, 2, cells, cells, generator=torch.Generator().manual_seed(cells)) * 3).to(dtype)
    boxes = torch.tensor(
        [
            [3.2, 4.1, 22.7, 21.3],
            [0, 0, 0.4, 0.2],
            [5, 5, 6, 22.5],
            [1, 1, 8, 8],
            [9.5, 2, 10.6, 3.4],
            [9, 9, 3, 3],
        ]
    )
    assert_same(run("decode_keypoints", maps.transpose(2, 3), boxes), expected("decode_keypoints", maps.transpose(2, 3), boxes))


def test_equal_values_keep_the_first_point_and_broken_rows_are_zero() -> None:
    maps = torch.zeros(4, 2, 8, 8)
    maps[1, 0, 2, 3], maps[1, 1, 7, 7] = float("nan"), 5.0
    boxes = torch.tensor([[2.0, 3.0, 32.0, 23.0], [0.0, 0.0, 5.0, 5.0], [0.0, float("inf"), 5.0, 5.0], [0, 0, 20, 1]])
    found = run("decode_keypoints", maps, boxes)
    assert_same(found, expected("decode_keypoints", maps, boxes))
    assert found[0, 0, :3].tolist() == [2.5, 3.5, 0.0] and not found[1, 0].any() and found[1, 1].any() and not found[2].any()
    assert run("decode_keypoints", maps[:0], boxes[:0]).shape == (0, 2, 4)
