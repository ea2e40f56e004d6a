"""Deformable convolution: every tap of the kernel reads the features where a learnt offset puts it.

What: y[p] = sum over taps k of w[k] * mask[p, k] * x(p * stride - padding + k * dilation + offset[p, k]), x bilinear and zero
outside. Version 1 has no mask (all ones); version 2 ("modulated") learns one. Offsets come as (y, x) pairs per tap.
Limits: no bias. Half types are computed in float32, but on a GPU the product with the weight is taken in them. Channels are a
multiple of `groups` and of the offset groups, whose number is the offset's channels / (2 * taps).
Source: Dai et al. 2017 (v1), Zhu et al. 2019 (v2).
CUDA: a kernel samples what the taps read, and cuBLAS multiplies it by the weight; one kernel brings the gradient back.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def deform_conv2d(
    x_NCHW: Tensor,
    offset_NOHW: Tensor,
    weight_KCHW: Tensor,
    mask_NTHW: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> Tensor:
    """Features [N, K, H', W'] from x [N, C, H, W], offsets [N, offset groups * taps * 2, H', W'] in pixels of x, a weight
    [K, C / groups, h, w], and for version 2 a mask [N, offset groups * taps, H', W']. Gradients flow to all four. TypeError where
    their dtypes differ: positions of half types reach a few hundred pixels only.
    """
    dtypes = {str(value.dtype) for value in (x_NCHW, offset_NOHW, weight_KCHW, mask_NTHW) if value is not None}
    if len(dtypes) > 1:
        raise TypeError(
            f"deform_conv2d: x, offset, weight and mask are of {', '.join(sorted(dtypes))}; convert them to one dtype"
        )
    y: Tensor = torch.ops.detectline.deform_conv2d(x_NCHW, weight_KCHW, offset_NOHW, mask_NTHW, stride, padding, dilation, groups)
    return y


FAR = 2.0**24
"""Pixels; outside every picture, and any integer type holds it."""


def _offset_groups(offset: Tensor, weight: Tensor) -> int:
    return int(offset.shape[1]) // (2 * int(weight.shape[2]) * int(weight.shape[3]))


# -- CPU twin: torchvision's operator, which knows no half types --


def _arguments(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> tuple[Any, ...]:
    """What both of torchvision's operators take; it wants tensors where there is no mask and no bias."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x, weight, offset = x.float(), weight.float(), offset.float()
        mask = mask if mask is None else mask.float()
    offset = offset.nan_to_num(FAR, FAR, -FAR)  # torchvision reads any address for one that is no number: the process may die
    given = x.new_zeros((x.shape[0], 1)) if mask is None else mask
    geometry = (stride, stride, padding, padding, dilation, dilation, groups, _offset_groups(offset, weight), mask is not None)
    return (x, weight, offset, given, x.new_zeros(weight.shape[0]), *geometry)


def _forward(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    import torchvision  # noqa: F401  registers the operator below; takes seconds to import

    y: Tensor = torch.ops.torchvision.deform_conv2d(*_arguments(x, weight, offset, mask, stride, padding, dilation, groups))
    return y.to(x.dtype)


def _backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> list[Tensor]:
    import torchvision  # noqa: F401

    given = _arguments(x, weight, offset, mask, stride, padding, dilation, groups)
    upstream = upstream.to(given[0].dtype).contiguous()
    gradients = torch.ops.torchvision._deform_conv2d_backward(upstream, *given)
    return [gradient.to(x.dtype) for gradient in gradients[: 3 if mask is None else 4]]


# -- registration: schema, fake, autograd, ONNX --

LIBRARY.define(
    "deform_conv2d(Tensor x, Tensor weight, Tensor offset, Tensor? mask, int stride, int padding, int dilation, int groups) "
    "-> Tensor"
)
LIBRARY.define(
    "deform_conv2d_backward(Tensor upstream, Tensor x, Tensor weight, Tensor offset, Tensor? mask, int stride, int padding, "
    "int dilation, int groups) -> Tensor[]"
)
LIBRARY.impl("deform_conv2d", _forward, "CPU")
LIBRARY.impl("deform_conv2d_backward", _backward, "CPU")
on_cuda("deform_conv2d", "deform_conv2d", "deform_conv2d")
on_cuda("deform_conv2d_backward", "deform_conv2d", "deform_conv2d_backward")


def _fake(x: Tensor, weight: Tensor, offset: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])


def _backward_fake(upstream: Tensor, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, *_: Any) -> list[Tensor]:
    given = [value for value in (x, weight, offset, mask) if value is not None]
    return [torch.empty_like(value, memory_format=torch.contiguous_format) for value in given]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, offset, mask, *ctx.geometry = inputs
    ctx.has_mask = mask is not None
    ctx.save_for_backward(x, weight, offset, *([mask] if ctx.has_mask else []))


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, offset, *mask = ctx.saved_tensors
    mask = mask[0] if ctx.has_mask else None
    gradients = torch.ops.detectline.deform_conv2d_backward(upstream, x, weight, offset, mask, *ctx.geometry)
    return (*gradients, *([None] * (8 - len(gradients))))


torch.library.register_fake("detectline::deform_conv2d", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::deform_conv2d_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::deform_conv2d", _autograd, setup_context=_setup, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators: DeformConv, which ONNX has from opset 19 on."""
    import onnxscript

    op: Any = onnxscript.opset20

    def deform_conv2d_onnx(x, weight, offset, mask, stride: int, padding: int, dilation: int, groups: int):  # type: ignore[no-untyped-def]
        taps = int(weight.shape[2]) * int(weight.shape[3])
        return op.DeformConv(
            x,
            weight,
            offset,
            None,
            mask,
            strides=[stride, stride],
            pads=[padding] * 4,
            dilations=[dilation, dilation],
            group=groups,
            offset_group=int(offset.shape[1]) // (2 * taps),
        )

    return torch.ops.detectline.deform_conv2d.default, deform_conv2d_onnx
