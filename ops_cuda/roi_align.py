"""ROIAlign over the levels of a feature pyramid.

What: each box is averaged from its own level's features, bilinear samples in size x size cells. `aligned` shifts by half a pixel
(continuous coordinates); without it the legacy form, whose boxes are at least one pixel. `sampling_ratio` 0 is adaptive:
ceil(box side / size) samples a side. A box on level -1 (padding) costs nothing and gives zeros.
Limits: float32 and float64 features.
Source: He et al. 2017 (Mask R-CNN); level choice by Lin et al. 2017 (FPN), equation 1.
CUDA: torchvision's kernel once per level over all boxes, other levels' boxes made empty; no synchronisation. One launch for all
levels comes with this op's own kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY


def pyramid_level(boxes_M4: Tensor, levels: int, lowest: int, canonical_size: float, canonical_level: int) -> Tensor:
    """Index [...] (int64) into `levels` pyramid levels from `lowest` up: larger boxes read coarser features.

    A box whose sqrt(area) is `canonical_size` pixels belongs to level `canonical_level`.
    """
    area = (boxes_M4[..., 2] - boxes_M4[..., 0]) * (boxes_M4[..., 3] - boxes_M4[..., 1])
    level = torch.floor(canonical_level + torch.log2(area.clamp(min=0).sqrt() / canonical_size + 1e-8))
    return level.clamp(lowest, lowest + levels - 1).to(torch.int64) - lowest


def roi_align(
    features_NCHW: Sequence[Tensor],
    boxes_M4: Tensor,
    image_M: Tensor,
    level_M: Tensor,
    scales: Sequence[float],
    size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Region features [M, C, *size] of box m of image `image_M[m]` from level `level_M[m]`, whose pixels are 1/scale wide.

    Gradients flow to the features, none to the boxes.
    """
    height, width = size
    regions: Tensor = torch.ops.detectline.roi_align(
        list(features_NCHW), boxes_M4.detach(), image_M, level_M, list(scales), height, width, sampling_ratio, aligned
    )
    return regions


# -- CPU twin: torchvision's operator on the rows of each level --


def _rois(boxes: Tensor, image: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat([image.unsqueeze(1).to(dtype), boxes.to(dtype)], dim=1)


def _forward_cpu(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    from torchvision.ops import roi_align as align  # torchvision takes seconds to import

    regions = features[0].new_zeros(len(boxes), features[0].shape[1], height, width)
    rois = _rois(boxes, image, features[0].dtype)
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = torch.nonzero(level == number).squeeze(1)
        if len(rows) == len(boxes) > 0:
            return align(feature, rois, (height, width), scale, ratio, aligned)  # type: ignore[no-any-return]
        if len(rows):
            regions[rows] = align(feature, rois[rows], (height, width), scale, ratio, aligned)
    return regions


def _backward_cpu(
    upstream: Tensor,
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    ratio: int,
    aligned: bool,
) -> list[Tensor]:
    import torchvision  # noqa: F401  registers the operator below

    rois, (height, width) = _rois(boxes, image, upstream.dtype), upstream.shape[2:]
    gradients = []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = torch.nonzero(level == number).squeeze(1)
        gradients.append(
            torch.ops.torchvision._roi_align_backward(
                upstream[rows].contiguous(), rois[rows], scale, height, width, *feature.shape, ratio, aligned
            )
            if len(rows)
            else torch.zeros_like(feature)
        )
    return gradients


# -- CUDA: the same operator without asking which rows belong to a level --


def _forward_cuda(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    from torchvision.ops import roi_align as align

    rois = _rois(boxes, image.clamp(min=0), features[0].dtype)
    regions = features[0].new_zeros(len(boxes), features[0].shape[1], height, width)
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        mine = level == number
        own = align(feature, rois * mine.unsqueeze(1), (height, width), scale, ratio, aligned)
        regions = torch.where(mine.view(-1, 1, 1, 1), own, regions)
    return regions


def _backward_cuda(
    upstream: Tensor,
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    ratio: int,
    aligned: bool,
) -> list[Tensor]:
    import torchvision  # noqa: F401  registers the operator below

    rois, (height, width) = _rois(boxes, image.clamp(min=0), upstream.dtype), upstream.shape[2:]
    gradients = []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        mine = level == number
        own = (upstream * mine.view(-1, 1, 1, 1)).contiguous()
        gradients.append(
            torch.ops.torchvision._roi_align_backward(
                own, rois * mine.unsqueeze(1), scale, height, width, *feature.shape, ratio, aligned
            )
        )
    return gradients


# -- registration: schema, fake, autograd, ONNX --

LIBRARY.define(
    "roi_align(Tensor[] features, Tensor boxes, Tensor image, Tensor level, float[] scales, int height, int width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)
LIBRARY.define(
    "roi_align_backward(Tensor upstream, Tensor[] features, Tensor boxes, Tensor image, Tensor level, float[] scales, "
    "int sampling_ratio, bool aligned) -> Tensor[]"
)
LIBRARY.impl("roi_align", _forward_cpu, "CPU")
LIBRARY.impl("roi_align_backward", _backward_cpu, "CPU")
LIBRARY.impl("roi_align", _forward_cuda, "CUDA")
LIBRARY.impl("roi_align_backward", _backward_cuda, "CUDA")


def _fake(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    return features[0].new_empty(boxes.shape[0], features[0].shape[1], height, width)


def _backward_fake(upstream: Tensor, features: list[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(feature) for feature in features]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, image, level, ctx.scales, _, _, ctx.ratio, ctx.aligned = inputs
    ctx.save_for_backward(boxes, image, level, *features)


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    boxes, image, level, *features = ctx.saved_tensors
    gradients = torch.ops.detectline.roi_align_backward(
        upstream, features, boxes, image, level, ctx.scales, ctx.ratio, ctx.aligned
    )
    return (gradients, *([None] * 8))


torch.library.register_fake("detectline::roi_align", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::roi_align_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::roi_align", _autograd, setup_context=_setup, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators: RoiAlign on each level's own rows, results put back in order.

    Each level gets one box outside the picture before its rows, so that none runs on nothing; rows on level -1 read it: zeros.
    """
    import onnxscript

    op: Any = onnxscript.opset20

    def roi_align_onnx(  # type: ignore[no-untyped-def]
        features: Sequence[onnxscript.FLOAT],
        boxes,
        image,
        level,
        scales: Sequence[float],
        height: int,
        width: int,
        sampling_ratio: int,
        aligned: bool,
    ):
        first, outside = op.Constant(value_ints=[0]), op.Constant(value=_box_outside())
        rows_of_boxes = op.Shape(boxes, start=0, end=1)
        regions, order = [], []
        for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            rows = op.Squeeze(op.NonZero(op.Equal(level, op.Constant(value_ints=[number]))), first)
            regions.append(
                op.RoiAlign(
                    feature,
                    op.Concat(outside, op.Gather(boxes, rows), axis=0),
                    op.Concat(first, op.Gather(image, rows), axis=0),
                    spatial_scale=scale,
                    output_height=height,
                    output_width=width,
                    sampling_ratio=sampling_ratio,
                    mode="avg",
                    coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                )
            )
            order += [rows_of_boxes, rows]  # the outside box belongs to no row: it goes to a slot behind the last
        slots = op.Concat(*order, axis=0)
        one = op.Constant(value_int=1)
        numbers = op.Range(op.Constant(value_int=0), op.Squeeze(op.Size(slots)), one)
        nowhere = op.Expand(first, op.Add(rows_of_boxes, op.Constant(value_ints=[1])))
        place = op.Slice(op.ScatterElements(nowhere, slots, numbers, axis=0), first, rows_of_boxes, first)
        return op.Gather(op.Concat(*regions, axis=0), place, axis=0)

    return torch.ops.detectline.roi_align.default, roi_align_onnx


def _box_outside() -> Any:
    """A box so far outside every picture that all its samples are zero, in the legacy form too."""
    import numpy as np
    import onnx

    return onnx.numpy_helper.from_array(np.full((1, 4), -1e6, np.float32))
