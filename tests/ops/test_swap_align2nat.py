"""Swap-align-to-natural against the definition, cell by cell; gradcheck; an aligned map of a known scene."""

import math

import pytest
import torch

import ops_cuda


def plain(aligned: torch.Tensor, side: int, scale: int, height: int, width: int, pad: float) -> torch.Tensor:
    """The definition, one cell after the other, in Python."""
    images, _, rows, columns = aligned.shape
    grid = aligned.double().view(images, side, side, rows, columns)
    cells = scale * side
    out = torch.full((images, cells, cells, height, width), pad, dtype=torch.float64)

    def units(cell: int) -> list[tuple[int, float]]:
        at = min(max((cell - cells // 2) / scale + side // 2, 0), side - 1)
        low = math.floor(at)
        return [(low, 1 - (at - low)), (min(low + 1, side - 1), at - low)]

    for v in range(cells):
        for u in range(cells):
            for y in range(height):
                for x in range(width):
                    row, column = scale * y + v - cells // 2, scale * x + u - cells // 2
                    if 0 <= row < rows and 0 <= column < columns:
                        out[:, v, u, y, x] = sum(
                            share * other * grid[:, i, j, row, column] for i, share in units(v) for j, other in units(u)
                        )
    return out


@pytest.mark.parametrize(
    ("side", "scale", "size"), [(3, 1, (5, 4)), (3, 2, (3, 2)), (4, 2, (3, 3)), (2, 4, (2, 1)), (3, 2, (4, 3))]
)
def test_equals_the_definition(side: int, scale: int, size: tuple[int, int]) -> None:
    """The last case has windows beyond the map, as levels rounded up have."""
    rows, columns = min(size[0] * scale, 6), size[1] * scale
    aligned = torch.rand(2, side * side, rows, columns, generator=torch.Generator().manual_seed(0))
    found = ops_cuda.swap_align2nat(aligned, side, scale, *size, -6.0)
    torch.testing.assert_close(found.double(), plain(aligned, side, scale, *size, -6.0), atol=1e-6, rtol=1e-6)
    assert (found == -6).any()


def test_gradcheck() -> None:
    aligned = torch.rand(1, 9, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops_cuda.swap_align2nat(x, 3, 2, 2, 3, 0.0), aligned)


def test_windows_show_a_scene_that_all_agree_on() -> None:
    """Where every unit says the same of a pixel, a window's mask is the map itself, cut out."""
    scene = torch.rand(8, 8)
    natural = ops_cuda.swap_align2nat(scene.expand(1, 9, 8, 8), 3, 2, 4, 4, 0.0)
    assert torch.equal(natural[0, :, :, 2, 1], torch.nn.functional.pad(scene, (3, 0, 3, 0))[4:10, 2:8])


def test_the_fused_op_is_sound_and_the_same() -> None:
    """What CUDA tensors go through: torch's own checks of its registration, on the CPU."""
    aligned = torch.rand(2, 9, 4, 6, requires_grad=True)
    given = (aligned, 3, 2, 2, 3, -6.0)
    torch.library.opcheck(torch.ops.detectline.swap_align2nat_fused.default, given)
    assert torch.equal(torch.ops.detectline.swap_align2nat_fused(*given), ops_cuda.swap_align2nat(*given))
