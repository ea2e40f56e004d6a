"""Polygons as bitmaps of their picture: against pycocotools' full bitmaps, torch's grid_sample and torchvision's ROIAlign."""

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional
from torchvision.ops import roi_align

from ops_cuda import crop_bitmaps, sample_bitmaps

HEIGHT, WIDTH = 40, 56


def pools(seed: int, owners: int) -> tuple[list[np.ndarray], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Full bitmaps by pycocotools, and the same polygons as pools; two polygons each, partly outside the picture."""
    random = np.random.Generator(np.random.PCG64(seed))
    bitmaps, points = [], []
    for _ in range(owners):
        own = [np.round(random.uniform(-8, 60, (int(random.integers(3, 9)), 2)), 2) for _ in range(2)]
        points += own
        bitmaps.append(
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p.reshape(-1).tolist() for p in own], HEIGHT, WIDTH)))
        )
    lengths = [len(p) for p in points]
    starts = torch.from_numpy(np.cumsum([0, *lengths])), torch.arange(owners + 1) * 2
    return bitmaps, torch.from_numpy(np.concatenate(points)), *starts


def test_bitmaps_at_points() -> None:
    bitmaps, *polygons = pools(1, 12)
    owner = torch.tensor([3, 0, 3, 11, -1, 7])
    sizes = torch.tensor([[HEIGHT, WIDTH]] * 6)
    at = torch.rand(6, 50, 2, generator=torch.Generator().manual_seed(0)) * 70 - 7
    at[0, 0] = float("nan")
    found = sample_bitmaps(*polygons, sizes, owner, at)
    for r, number in enumerate(owner.tolist()):
        if number < 0:
            assert not found[r].any()
            continue
        grid = (at[r] / torch.tensor([WIDTH, HEIGHT]) * 2 - 1)[None, None]
        full = torch.from_numpy(bitmaps[number]).float()[None, None]
        expected = functional.grid_sample(full, grid.nan_to_num(-5), align_corners=False)[0, 0, 0]
        torch.testing.assert_close(found[r], expected, atol=1e-6, rtol=0)


def test_centres_of_pixels_give_the_bitmap_back() -> None:
    bitmaps, *polygons = pools(2, 40)
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    at = torch.stack([x, y], -1).reshape(1, -1, 2).repeat(40, 1, 1)
    found = sample_bitmaps(*polygons, torch.tensor([[HEIGHT, WIDTH]] * 40), torch.arange(40), at)
    np.testing.assert_allclose(found.reshape(40, HEIGHT, WIDTH), np.stack(bitmaps), atol=1e-5)


def test_crops() -> None:
    bitmaps, *polygons = pools(3, 5)
    boxes = torch.tensor([[3.0, 4, 40, 30], [-20, -10, 70, 60], [10.2, 10.9, 11.4, 30], [0, 0, 56, 40], [30, 5, 44.5, 25.5]])
    owner = torch.tensor([0, 1, 2, 3, 4])
    found = crop_bitmaps(*polygons, torch.tensor([[HEIGHT, WIDTH]] * 5), boxes, owner, 14)
    full = torch.from_numpy(np.stack(bitmaps)).float()[:, None]
    expected = roi_align(full, torch.cat([owner[:, None].float(), boxes], 1), (14, 14), 1.0, 0, True)[:, 0] >= 0.5
    assert torch.equal(found, expected) and 0.1 < found.float().mean() < 0.9
