"""Swap-align-to-natural: window masks from the aligned representation of a fine map (TensorMask).

What: the aligned map holds at pixel (y, x) and channel (v, u) the mask value there of the window whose centre lies (v - V // 2,
u - V // 2) units away, a unit being `scale` pixels of the map. The natural form holds for each window, every `scale` pixels, its
own mask of side scale * V: cell (v, u) of the window at (y, x) lies on the map's pixel (scale * y + v - scale * V // 2, ...), and
its value is interpolated between the two nearest units in either direction (up-align), at that pixel alone (swap: the sides grow
by `scale` as the map shrinks by it). Cells outside the map are `pad`.
Limits: C is V * V, v before u; a unit beyond the last is taken as the last. Gradient by the same expressions.
Source: Chen et al. 2019 (TensorMask), sections 4.2, 4.3 and appendix A.1 (up_align2nat, swap_align2nat), alpha = 1.
CUDA: one kernel each way instead of the tensor expressions; half types are computed in float32.
"""

from typing import Any

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def swap_align2nat(aligned_NCHW: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    """Masks [N, scale * side, scale * side, height, width] of height x width windows from [N, side * side, H, W]."""
    natural: Tensor = torch.ops.detectline.swap_align2nat(aligned_NCHW, side, scale, height, width, pad)
    return natural


# -- CPU twin --


def _reads(x: Tensor, side: int, scale: int, windows: int, pixels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one direction with [side, pixels] values: places of the lower and the upper unit of each cell of each window, [cells *
    windows], the upper one's share [cells, 1], and which lie inside the map [cells, windows]. Dtype and device of `x`."""
    cells = scale * side
    offset_V = torch.arange(cells, device=x.device) - cells // 2
    place_VW = offset_V.unsqueeze(1) + scale * torch.arange(windows, device=x.device)
    inside_VW = (place_VW >= 0) & (place_VW < pixels)
    unit_V = (offset_V.to(x.dtype) / scale + side // 2).clamp(0, side - 1)
    low_V = unit_V.floor().to(torch.int64)
    share_V1 = (unit_V - low_V.to(x.dtype)).unsqueeze(1)
    high_V = (low_V + 1).clamp(max=side - 1)
    at_VW = place_VW.clamp(min=0).minimum(torch.full_like(place_VW, 1) * (pixels - 1))
    low, high = ((unit.unsqueeze(1) * pixels + at_VW).flatten() for unit in (low_V, high_V))
    return low, high, share_V1, inside_VW


def _along(x: Tensor, side: int, scale: int, windows: int, pad: float) -> Tensor:
    """One direction: [..., side, pixels] -> [..., scale * side, windows]."""
    low, high, share_V1, inside_VW = _reads(x, side, scale, windows, x.shape[-1])
    flat = x.flatten(-2)
    below, above = (flat.index_select(-1, index).unflatten(-1, (scale * side, windows)) for index in (low, high))
    mixed = below * (1 - share_V1) + above * share_V1
    return torch.where(inside_VW, mixed, torch.full_like(mixed, pad))


def _along_backward(upstream: Tensor, side: int, scale: int, pixels: int) -> Tensor:
    """Its gradient: [..., scale * side, windows] -> [..., side, pixels]."""
    low, high, share_V1, inside_VW = _reads(upstream, side, scale, upstream.shape[-1], pixels)
    slope = torch.where(inside_VW, upstream, torch.zeros_like(upstream))
    flat = slope.new_zeros(*slope.shape[:-2], side * pixels)
    flat = flat.index_add(-1, low, (slope * (1 - share_V1)).flatten(-2)).index_add(-1, high, (slope * share_V1).flatten(-2))
    return flat.unflatten(-1, (side, pixels))


def _swap_align2nat(x: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    if x.is_cuda:
        natural: Tensor = torch.ops.detectline.swap_align2nat_fused(x, side, scale, height, width, pad)
        return natural
    return _expressions(x, side, scale, height, width, pad)


def _expressions(x: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    aligned_NVUHW = x.unflatten(1, (side, side))
    rows_NUWVY = _along(aligned_NVUHW.permute(0, 2, 4, 1, 3), side, scale, height, pad)
    columns_NVYUX = _along(rows_NUWVY.permute(0, 3, 4, 1, 2), side, scale, width, pad)
    return columns_NVYUX.permute(0, 1, 3, 2, 4)


def _expressions_contiguous(x: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    return _expressions(x, side, scale, height, width, pad).contiguous()


def _expressions_backward(upstream: Tensor, side: int, scale: int, rows: int, columns: int) -> Tensor:
    rows_NUWVY = _along_backward(upstream.permute(0, 1, 3, 2, 4), side, scale, columns).permute(0, 3, 4, 1, 2)
    aligned_NVUHW = _along_backward(rows_NUWVY, side, scale, rows).permute(0, 3, 1, 4, 2)
    return aligned_NVUHW.flatten(1, 2).contiguous()


# -- registration: on the CPU the composite form gives the fake, the gradient and the ONNX decomposition --

LIBRARY.define("swap_align2nat(Tensor x, int side, int scale, SymInt height, SymInt width, float pad) -> Tensor")
LIBRARY.define("swap_align2nat_fused(Tensor x, int side, int scale, SymInt height, SymInt width, float pad) -> Tensor")
LIBRARY.define("swap_align2nat_backward(Tensor upstream, int side, int scale, SymInt rows, SymInt columns) -> Tensor")
LIBRARY.impl("swap_align2nat", _swap_align2nat, "CompositeImplicitAutograd")
LIBRARY.impl("swap_align2nat_fused", _expressions_contiguous, "CPU")
LIBRARY.impl("swap_align2nat_backward", _expressions_backward, "CPU")
on_cuda("swap_align2nat_fused", "swap_align2nat", "forward")
on_cuda("swap_align2nat_backward", "swap_align2nat", "backward")


def _fake(x: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    return x.new_empty(x.shape[0], scale * side, scale * side, height, width)


def _backward_fake(upstream: Tensor, side: int, scale: int, rows: int, columns: int) -> Tensor:
    return upstream.new_empty(upstream.shape[0], side * side, rows, columns)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.side, ctx.scale, *_ = inputs
    ctx.grid = x.shape[2:]


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    gradient = torch.ops.detectline.swap_align2nat_backward(upstream, ctx.side, ctx.scale, *ctx.grid)
    return (gradient, *([None] * 5))


torch.library.register_fake("detectline::swap_align2nat_fused", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::swap_align2nat_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::swap_align2nat_fused", _autograd, setup_context=_setup, lib=LIBRARY)
