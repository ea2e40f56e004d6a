"""Mask pasting against torch's grid_sample in float64, at its threshold by hand, and as run lengths against pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from ops_cuda import paste_masks, paste_rle
from pipeline.data.masks import unpack

NAN, INF = float("nan"), float("inf")
DEGENERATE = torch.tensor(
    [
        [1, 1, 1, 4],
        [1, 3, 4, 3],
        [3, 3, 1, 1],
        [NAN, 0, 4, 4],
        [0, 0, 4, NAN],
        [0, 0, INF, 4],
        [-INF, 0, 4, 4],
        [-3e38, 0, 3e38, 4],
    ]
)
"""Boxes without area, inverted, not finite, and of a side that float32 does not hold."""


def probabilities(count: int, cells: int, seed: int = 0) -> Tensor:
    return torch.rand(count, cells, cells, generator=torch.Generator().manual_seed(seed))


def placed(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Boxes of every size, most of them partly outside the picture."""
    random = np.random.default_rng(seed)
    corner = random.uniform(-0.4, 1, (count, 2)) * [width, height]
    side = random.choice([0.3, 2, 9, 30, 90], (count, 2)) * random.uniform(0.5, 1, (count, 2))
    return torch.from_numpy(np.concatenate([corner, corner + side], axis=1).astype(np.float32))


def edges(count: int, cells: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Masks of 0 and 1 and boxes at halves and quarters of pixels."""
    random = np.random.default_rng(seed)
    low = random.integers(-4, 2 * side, (count, 2)) / 4
    boxes = np.concatenate([low, low + random.integers(1, 4 * side, (count, 2)) / 4], axis=1)
    return probabilities(count, cells, seed).round(), torch.from_numpy(boxes.astype(np.float32))


def values(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Bilinear values [R, height, width] in float64, zero outside the grid."""
    sides = boxes.double().view(-1, 2, 2)
    x = (torch.arange(width) + 0.5 - sides[:, 0, :1]) / (sides[:, 1] - sides[:, 0])[:, :1] * 2 - 1
    y = (torch.arange(height) + 0.5 - sides[:, 0, 1:]) / (sides[:, 1] - sides[:, 0])[:, 1:] * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    given = masks.double().unsqueeze(1)
    return torch.nn.functional.grid_sample(given, grid, "bilinear", "zeros", align_corners=False)[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cells", [1, 7, 28])
def test_equals_grid_sample(cells: int, dtype: torch.dtype) -> None:
    masks, boxes = probabilities(200, cells).to(dtype), placed(200, 41, 53)
    pasted, sampled = paste_masks(masks, boxes, 41, 53), values(masks, boxes, 41, 53)
    clear = (sampled - 0.5).abs() > 1e-4
    assert clear.float().mean() > 0.999 and 0.001 < pasted.float().mean() < 0.5
    assert torch.equal(pasted[clear], (sampled >= 0.5)[clear])


def test_half_is_in() -> None:
    """Borders on pixels' centres: half a cell's weight in one direction is in, in both it is not."""
    pasted = paste_masks(torch.ones(1, 4, 4), torch.tensor([[1.5, 1.5, 5.5, 5.5]]), 8, 8)[0]
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[1:6, 1:6] = True
    wanted[[1, 1, 5, 5], [1, 5, 1, 5]] = False
    assert torch.equal(pasted, wanted)


def test_nothing() -> None:
    assert not paste_masks(torch.ones(len(DEGENERATE), 4, 4), DEGENERATE, 5, 4).any()
    counts, starts = paste_rle(torch.ones(len(DEGENERATE), 4, 4), DEGENERATE, 5, 4, 20)
    assert counts.tolist() == [20] * 8 + [0] * 12 and starts.tolist() == list(range(9))
    assert not paste_masks(torch.ones(1, 0, 0), torch.tensor([[0.0, 0, 4, 4]]), 5, 4).any()
    assert paste_masks(torch.ones(0, 4, 4), DEGENERATE[:0], 5, 4).shape == (0, 5, 4)
    assert paste_masks(torch.ones(1, 4, 4), torch.tensor([[0.0, 0, 4, 4]]), 0, 4).shape == (1, 0, 4)


@pytest.mark.parametrize("size", [(41, 53), (1, 30), (30, 1)])
def test_run_lengths_equal_pycocotools(size: tuple[int, int]) -> None:
    """Masks that fill the picture, whose last pixel is in, and that touch its first among them."""
    everything = torch.tensor([[-1000.0, -1000, 1000, 1000], [-1000, -1000, 0.75, 0.75], [20, 20, 1000, 1000]])
    masks = torch.cat([torch.ones(3, 7, 7), probabilities(60, 7), edges(60, 7, 30)[0]])
    boxes = torch.cat([everything, placed(60, *size), edges(60, 7, 30)[1]])
    pasted = paste_masks(masks, boxes, *size)
    counts, starts = paste_rle(masks, boxes, *size, 100_000)
    assert pasted[0].all() and len(starts) == len(masks) + 1
    for r, mask in enumerate(pasted):
        packed = coco_mask.encode(np.asfortranarray(mask.numpy(), np.uint8))["counts"]
        assert counts[starts[r] : starts[r + 1]].tolist() == unpack(packed).tolist()
    assert not counts[starts[-1] :].any()
    cut, same = paste_rle(masks, boxes, *size, 50)
    assert torch.equal(cut, counts[:50]) and torch.equal(same, starts)


def test_registrations() -> None:
    masks, boxes = probabilities(3, 5).transpose(1, 2), placed(3, 9, 8)
    torch.library.opcheck(torch.ops.detectline.paste_masks.default, (masks, boxes, 9, 8))
    torch.library.opcheck(torch.ops.detectline.paste_rle.default, (masks, boxes, 9, 8, 60))


def test_traced_whole_with_sizes_that_change() -> None:
    """Through the public functions, of masks that carry gradients."""
    torch._dynamo.reset()

    def both(masks: Tensor, boxes: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
        return paste_masks(masks, boxes, height, width), *paste_rle(masks, boxes, height, width, 500)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True, dynamic=True)
    for count, height, width in ((3, 9, 8), (5, 12, 7)):
        given = probabilities(count, 5).requires_grad_(), placed(count, height, width), height, width
        assert all(map(torch.equal, compiled(*given), both(*given)))
