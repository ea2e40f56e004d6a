"""Max-pooling of regions over the levels of a feature pyramid: the pooling of Fast R-CNN, before ROIAlign.

What: each box, rounded to whole feature cells (ends included), is divided into size x size cells, and each cell takes the largest
feature in it; a cell without features is 0. A box on level -1 (padding) costs nothing and gives zeros.
Limits: float32 and float64 features.
Source: Girshick 2015 (Fast R-CNN), section 2.1.
CUDA: a kernel each way, launched once per level; half types too. Gradients add up in no fixed order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def roi_pool(
    features_NCHW: Sequence[Tensor],
    boxes_M4: Tensor,
    image_M: Tensor,
    level_M: Tensor,
    scales: Sequence[float],
    size: tuple[int, int],
) -> Tensor:
    """Region features [M, C, *size] of box m of image `image_M[m]` from level `level_M[m]`, whose pixels are 1/scale wide.

    Gradients flow to the features, none to the boxes.
    """
    given = list(features_NCHW), boxes_M4.detach(), image_M, level_M, list(scales)
    regions, _ = torch.ops.detectline.roi_pool(*given, *size)
    return regions  # type: ignore[no-any-return]


# -- CPU twin: torchvision's operator --


def _rois(boxes: Tensor, image: Tensor, mine: Tensor, dtype: torch.dtype) -> Tensor:
    """torchvision's rows (image, box), those that are not `mine` a point in the corner of image 0."""
    rois = torch.cat([image.unsqueeze(1).to(dtype), boxes.to(dtype)], dim=1)
    return torch.where(mine.unsqueeze(1), rois, torch.zeros_like(rois))


def _forward(
    features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], height: int, width: int
) -> tuple[Tensor, Tensor]:
    import torchvision  # noqa: F401  registers the operator below; takes seconds to import

    regions = features[0].new_zeros(boxes.shape[0], features[0].shape[1], height, width)
    places = torch.full_like(regions, -1, dtype=torch.int32)
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        mine = level == number
        rois = _rois(boxes, image, mine, feature.dtype)
        own, place = torch.ops.torchvision.roi_pool(feature, rois, scale, height, width)
        regions = torch.where(mine.view(-1, 1, 1, 1), own, regions)
        places = torch.where(mine.view(-1, 1, 1, 1), place, places)
    return regions, places


def _backward(
    upstream: Tensor, features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, places: Tensor, scales: list[float]
) -> list[Tensor]:
    import torchvision  # noqa: F401

    height, width = upstream.shape[2:]
    gradients = []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        mine = level == number
        own = torch.where(mine.view(-1, 1, 1, 1), places, torch.full_like(places, -1))  # -1: no feature was the largest
        rois, shape = _rois(boxes, image, mine, feature.dtype), feature.shape
        gradient = torch.ops.torchvision._roi_pool_backward(upstream.contiguous(), rois, own, scale, height, width, *shape)
        gradients.append(gradient)
    return gradients


# -- registration: schema, fake, autograd, ONNX --

LIBRARY.define(
    "roi_pool(Tensor[] features, Tensor boxes, Tensor image, Tensor level, float[] scales, int height, int width) "
    "-> (Tensor, Tensor)"
)
LIBRARY.define(
    "roi_pool_backward(Tensor upstream, Tensor[] features, Tensor boxes, Tensor image, Tensor level, Tensor places, "
    "float[] scales) -> Tensor[]"
)
LIBRARY.impl("roi_pool", _forward, "CPU")
LIBRARY.impl("roi_pool_backward", _backward, "CPU")
on_cuda("roi_pool", "roi_pool", "forward")
on_cuda("roi_pool_backward", "roi_pool", "backward")


def _fake(
    features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], height: int, width: int
) -> tuple[Tensor, Tensor]:
    regions = features[0].new_empty(boxes.shape[0], features[0].shape[1], height, width)
    return regions, torch.empty_like(regions, dtype=torch.int32)


def _backward_fake(upstream: Tensor, features: list[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(feature, memory_format=torch.contiguous_format) for feature in features]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, boxes, image, level, ctx.scales, _, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(boxes, image, level, output[1], *features)


def _autograd(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Any, ...]:
    boxes, image, level, places, *features = ctx.saved_tensors
    gradients = torch.ops.detectline.roi_pool_backward(upstream, features, boxes, image, level, places, ctx.scales)
    return (gradients, *([None] * 6))


torch.library.register_fake("detectline::roi_pool", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::roi_pool_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::roi_pool", _autograd, setup_context=_setup, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators: MaxRoiPool of all boxes on each level, of which each box takes its own."""
    import onnxscript

    op: Any = onnxscript.opset20

    # Untyped tensor arguments: onnxscript reads annotations as attributes.
    def roi_pool_onnx(  # type: ignore[no-untyped-def]
        features: Sequence[onnxscript.FLOAT], boxes, image, level, scales: Sequence[float], height: int, width: int
    ):
        axis = op.Constant(value_ints=[1])
        rois = op.Concat(op.Unsqueeze(op.Cast(image, to=1), axis), boxes, axis=1)
        nothing = op.Constant(value_float=0.0)
        regions = nothing
        for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            mine = op.Equal(level, op.Constant(value_ints=[number]))
            own = op.Where(op.Unsqueeze(mine, axis), rois, nothing)
            pooled = op.MaxRoiPool(feature, own, pooled_shape=[height, width], spatial_scale=scale)
            regions = op.Where(op.Unsqueeze(mine, op.Constant(value_ints=[1, 2, 3])), pooled, regions)
        return regions, op.Cast(op.Mul(regions, nothing), to=6)

    return torch.ops.detectline.roi_pool.default, roi_pool_onnx
