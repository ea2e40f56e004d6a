"""The kernels of polygons against the twins, cell by cell."""

import numpy as np
import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_bitmap_ops import HEIGHT, WIDTH
from tests.ops.test_bitmap_ops import pools as picture_pools
from tests.ops.test_rasterise_polygons import outlines, pools

pytestmark = ON_DEVICE


@pytest.mark.parametrize("kind", ["wild", "tied", "round"])
@pytest.mark.parametrize("size", [5, 35])
def test_mask_targets(kind: str, size: int) -> None:
    """35 rows are more than one word."""
    chance, count = np.random.default_rng(size), 12 if size == 5 else 3
    owners = [*(outlines(chance, kind) for _ in range(count)), [], [np.array([[0.0, 0], [9, 9]])]]
    corner = chance.choice([0.0, 12.5, 33.25, 70.0], (count + 2, 2)) + (kind != "tied") * chance.random((count + 2, 2))
    side = chance.choice([0.0, 0.05, 1.0, 25.0, 50.0, 90.0], (count + 2, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + side], 1).astype(np.float32))
    owner = torch.from_numpy(chance.permutation(count + 2))
    owner[2] = -1
    given = (*pools(owners), boxes, owner, size)
    found = run("rasterise_polygons", *given)
    assert found.dtype == torch.bool and 0 < found.float().mean() < 1
    assert torch.equal(found, expected("rasterise_polygons", *given))


def test_far_and_broken_points_and_no_rows() -> None:
    wild = [np.array([[1e7, 0], [-1e7, 3e6], [50, -1e9]]), np.array([[np.nan, 0], [5, np.inf], [9, 9]])]
    far, broken = pools([wild[:1]]), pools([wild])
    given = (torch.tensor([[5.0, 5, 5.01, 5.01]]), torch.tensor([0]), 4)
    assert torch.equal(run("rasterise_polygons", *far, *given), expected("rasterise_polygons", *far, *given))
    assert run("rasterise_polygons", *broken, *given).shape == (1, 4, 4)
    assert run("rasterise_polygons", *far, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 4).shape == (0, 4, 4)


def test_bitmaps_at_points() -> None:
    _, *polygons = picture_pools(1, 4)
    owner = torch.tensor([3, 0, -1, 2])
    sizes = torch.tensor([[HEIGHT, WIDTH]] * 4)
    sizes[3] = 0
    at = torch.rand(4, 30, 2, generator=torch.Generator().manual_seed(0)) * 70 - 7
    at[0, 0], at[0, 1, 1], at[1, 0] = float("nan"), float("inf"), torch.tensor([10.5, 20.5])
    given = (*polygons, sizes, owner, at)
    torch.testing.assert_close(run("sample_bitmaps", *given), expected("sample_bitmaps", *given), atol=2e-5, rtol=0)
    assert run("sample_bitmaps", *polygons, sizes[:0], owner[:0], at[:0]).shape == (0, 30)


def test_crops_of_bitmaps() -> None:
    """Boxes inside, beyond every edge, of less than a pixel, without sides, and one that is no number."""
    _, *polygons = picture_pools(3, 5)
    boxes = torch.tensor(
        [
            [3.0, 4, 40, 30],
            [-20, -10, 70, 60],
            [10.2, 10.9, 11.4, 30],
            [0, 0, 56, 40],
            [30, 5, 44.5, 25.5],
            [9, 9, 9, 9],
            [0, 0, float("nan"), 4],
            [0, 0, 30, 30],
        ]
    )
    owner = torch.tensor([0, 1, 2, 3, 4, 0, 2, -1])
    given = (*polygons, torch.tensor([[HEIGHT, WIDTH]] * 8), boxes, owner, 5)
    found = run("crop_bitmaps", *given)
    assert torch.equal(found, expected("crop_bitmaps", *given)) and 0.1 < found[:5].float().mean() < 0.9
    sizes, boxes, owner = (values[:0] for values in given[3:6])
    assert run("crop_bitmaps", *polygons, sizes, boxes, owner, 5).shape == (0, 5, 5)
