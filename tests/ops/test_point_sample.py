"""Points of padded batches against grid_sample, picture by picture, forward and backward."""

import torch
from torch.nn import functional

from ops_cuda import point_sample


def slowly(maps: torch.Tensor, points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    extent = torch.tensor([maps.shape[3], maps.shape[2]], dtype=maps.dtype)
    rows = [
        functional.grid_sample(maps[[n]], (own / extent * 2 - 1)[None, None], align_corners=False)[0, :, 0]
        for own, n in zip(points, image.tolist(), strict=True)
    ]
    return torch.stack(rows)


def test_equals_grid_sample_of_each_rows_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 6, 9, generator=generator, dtype=torch.float64).requires_grad_()
    points = torch.rand(5, 40, 2, generator=generator, dtype=torch.float64) * 16 - 4  # beyond every edge too
    image = torch.tensor([2, 0, 1, 1, 2])
    found, expected = point_sample(maps, points, image), slowly(maps, points, image)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad(values, maps, upstream, retain_graph=True)[0] for values in (found, expected))
    torch.testing.assert_close(mine, theirs)
    assert point_sample(maps, points[:0], image[:0]).shape == (0, 4, 40)


def test_the_op_is_sound() -> None:
    """torch's own checks of schema, fake and autograd registration."""
    maps, points = torch.randn(2, 3, 5, 4, requires_grad=True), torch.rand(3, 7, 2) * 5
    torch.library.opcheck(torch.ops.detectline.point_sample.default, (maps, points, torch.tensor([1, 0, 1])))
