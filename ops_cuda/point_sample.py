"""Features at points: bilinear reading of each region's own picture.

What: row m reads picture `image_M[m]` at P points given in map pixels (a pixel's centre is at index + 0.5), zero outside the map.
Limits: float32 and float64 maps; on the CPU at most 2**20 rows of pixels in a batch, below which float32 places a point within
0.1 pixels.
Source: Kirillov et al. 2020 (PointRend), section 3.2.
How: on the CPU the batch's maps are stacked into one tall map with a row of zeros after each, so that one bilinear reading
serves all rows whatever picture they belong to.
CUDA: one kernel each way, that reads each map where it is; half types too, computed in float32. Gradients add up in no fixed
order.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda._registration import LIBRARY, on_cuda


def point_sample(map_NCHW: Tensor, points_MP2: Tensor, image_M: Tensor) -> Tensor:
    """Values [M, C, P] at points (x, y). Gradients flow to the map, none to the points."""
    values_MCP: Tensor = torch.ops.detectline.point_sample(map_NCHW, points_MP2.detach(), image_M)
    return values_MCP


# -- CPU twin --


def _stacked(features: Tensor) -> Tensor:
    """[1, C, N * (H + 1), W]."""
    padded = functional.pad(features, (0, 0, 0, 1))
    return padded.transpose(0, 1).flatten(1, 2).unsqueeze(0).contiguous()


def _grid(features_shape: torch.Size, points: Tensor, image: Tensor) -> Tensor:
    """[1, M, P, 2]: places of the points in the stacked map, -1..1 from edge to edge."""
    images, _, height, width = features_shape
    # Above or below its picture a point reads the rows of zeros beside it: further away lies another picture.
    y = points[..., 1].clamp(-0.5, height + 0.5) + image.unsqueeze(1) * (height + 1)
    return torch.stack([points[..., 0] / width, y / (images * (height + 1))], dim=-1).unsqueeze(0) * 2 - 1


def _forward(features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    grid = _grid(features.shape, points.to(features.dtype), image)
    sampled = functional.grid_sample(_stacked(features), grid, align_corners=False)
    return sampled[0].transpose(0, 1).contiguous()


def _backward(upstream: Tensor, features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    images, channels, height, width = features.shape
    grid = _grid(features.shape, points.to(features.dtype), image)
    tall, _ = torch.ops.aten.grid_sampler_2d_backward(
        upstream.transpose(0, 1).unsqueeze(0).contiguous(), _stacked(features), grid, 0, 0, False, [True, False]
    )
    return tall.view(channels, images, height + 1, width)[:, :, :height].transpose(0, 1).contiguous()


# -- registration: schema, fake, autograd, ONNX --


def _fake(features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    return features.new_empty(points.shape[0], features.shape[1], points.shape[1])


def _backward_fake(upstream: Tensor, features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    return torch.ops.detectline.point_sample_backward(upstream, *ctx.saved_tensors), None, None


LIBRARY.define("point_sample(Tensor features, Tensor points, Tensor image) -> Tensor")
LIBRARY.define("point_sample_backward(Tensor upstream, Tensor features, Tensor points, Tensor image) -> Tensor")
LIBRARY.impl("point_sample", _forward, "CPU")
LIBRARY.impl("point_sample_backward", _backward, "CPU")
on_cuda("point_sample", "point_sample", "forward")
on_cuda("point_sample_backward", "point_sample", "backward")
torch.library.register_fake("detectline::point_sample", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::point_sample_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::point_sample", _autograd, setup_context=_setup, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators: GridSample of the stacked maps."""
    import onnxscript

    op: Any = onnxscript.opset20

    def point_sample_onnx(features, points, image):  # type: ignore[no-untyped-def]
        def whole(*values: int) -> Any:
            return op.Constant(value_ints=list(values))

        def real(value: float) -> Any:
            return op.Constant(value_float=value)

        images, channels, height, width = (op.Shape(features, start=axis, end=axis + 1) for axis in range(4))
        padded = op.Pad(features, whole(0, 0, 0, 0, 0, 0, 1, 0))
        tall = op.Mul(images, op.Add(height, whole(1)))
        stacked = op.Reshape(op.Transpose(padded, perm=[1, 0, 2, 3]), op.Concat(whole(1), channels, tall, width, axis=0))
        x, y = op.Split(points, num_outputs=2, axis=2)
        high = op.Cast(height, to=1)
        least = op.Neg(real(0.5))
        y = op.Min(op.Max(y, least), op.Add(high, real(0.5)))
        first = op.Cast(op.Mul(image, op.Add(height, whole(1))), to=1)
        y = op.Add(y, op.Unsqueeze(first, whole(1, 2)))
        placed = op.Concat(op.Div(x, op.Cast(width, to=1)), op.Div(y, op.Cast(tall, to=1)), axis=2)
        grid = op.Unsqueeze(op.Sub(op.Mul(placed, real(2.0)), real(1.0)), whole(0))
        sampled = op.GridSample(stacked, grid, mode="linear", padding_mode="zeros", align_corners=0)
        return op.Transpose(op.Squeeze(sampled, whole(0)), perm=[1, 0, 2])

    return torch.ops.detectline.point_sample.default, point_sample_onnx
