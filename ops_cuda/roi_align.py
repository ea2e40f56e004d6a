"""ROIAlign over the levels of a feature pyramid.

What: each box is averaged from its own level's features, bilinear samples in size x size cells. `aligned` shifts by half a pixel
(continuous coordinates); without it the legacy form, whose boxes are at least one pixel. `sampling_ratio` 0 is adaptive:
ceil(box side / size) samples a side. A box on level -1 (padding) costs nothing and gives zeros, as does one whose cells would
take MOST_SAMPLES samples a side or more, or whose sides are no number: it would never end.
Limits: float32 and float64 features. The CPU twin adds a cell's samples by row and column, not one by one as torchvision's: equal
up to rounding, in a fraction of the time. Its sums do not depend on the number of threads.
Source: He et al. 2017 (Mask R-CNN); level choice by Lin et al. 2017 (FPN), equation 1.
CUDA: one launch for all levels (up to 6) each way; half types too, computed in float32; gradients are added atomically.
"""

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, layout_of, on_cuda

MOST_SAMPLES = 4096
"""Adaptive samples of a cell along one axis: no cell of a box within a picture has so many features."""


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def samples_of(step: float, ratio: int) -> int:
    """Samples of a cell along one axis where it is `step` features long: `ratio`, or for 0 adaptive."""
    if ratio > 0:
        return ratio
    return math.ceil(step) if 0 < step < MOST_SAMPLES else 0


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


# -- CPU twin --


def _weights(real: Any) -> Callable[..., None]:
    """A njit function for one axis of one box, in `real` arithmetic."""

    @numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]  # positions: no fused arithmetic
    def weights(
        start: float, side: float, cells: int, samples: int, length: int, first: np.ndarray, count: np.ndarray, weight: np.ndarray
    ) -> None:
        """For each cell the features it reads, first[p] on, count[p] of them, and the sums of its samples' weights."""
        step = real(side / real(cells))
        grid = samples_of(step, samples)
        for p in range(cells):
            first[p], count[p] = 0, 0
            for k in range(grid):
                at = real(start + real(p) * step) + real(real(k) + real(0.5)) * step / real(grid)
                if not (at >= -1 and at <= length):  # NaN too
                    continue
                at = max(at, real(0))
                low = int(at)
                low = min(low, length - 1)
                upper = at - real(low) if low < length - 1 else real(0)
                if count[p] == 0:
                    first[p] = low
                while count[p] < low + 2 - first[p]:
                    weight[p, count[p]] = real(0)
                    count[p] += 1
                weight[p, low - first[p]] += (real(1) - upper) / real(grid)
                weight[p, low + 1 - first[p]] += upper / real(grid)
            count[p] = min(count[p], length - first[p])

    return weights


def _kernels(real: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    """Forward and backward in `real` arithmetic. Features lie channels last: inner loops run over contiguous channels.

    Each call does some boxes, or some channels: what it writes is its own, and every sum has one order however the work is split.
    """
    weights = _weights(real)

    @numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
    def forward(x_NHWC: np.ndarray, frame: np.ndarray, image: np.ndarray, rows: np.ndarray, ratio: int, y: np.ndarray) -> None:
        _, height, width, channels = x_NHWC.shape
        down, across = y.shape[2], y.shape[3]
        first_y, count_y = np.empty(down, np.int64), np.empty(down, np.int64)
        first_x, count_x = np.empty(across, np.int64), np.empty(across, np.int64)
        weight_y, weight_x = np.empty((down, height + 2), real), np.empty((across, width + 2), real)
        region = np.empty((down * across, channels), real)
        for row in range(len(rows)):
            m = rows[row]
            weights(frame[m, 1], frame[m, 3], down, ratio, height, first_y, count_y, weight_y)
            weights(frame[m, 0], frame[m, 2], across, ratio, width, first_x, count_x, weight_x)
            region[:] = real(0)
            for p in range(down):
                for q in range(across):
                    cell = region[p * across + q]
                    for i in range(count_y[p]):
                        for j in range(count_x[q]):
                            weight = weight_y[p, i] * weight_x[q, j]
                            feature = x_NHWC[image[m], first_y[p] + i, first_x[q] + j]
                            for c in range(channels):
                                cell[c] += weight * feature[c]
            for c in range(channels):
                for p in range(down):
                    for q in range(across):
                        y[m, c, p, q] = region[p * across + q, c]

    @numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
    def backward(
        upstream: np.ndarray,
        frame: np.ndarray,
        image: np.ndarray,
        rows: np.ndarray,
        ratio: int,
        begin: int,
        end: int,
        x: np.ndarray,
    ) -> None:  # x is the gradient of the features
        _, height, width, _ = x.shape
        down, across = upstream.shape[2], upstream.shape[3]
        first_y, count_y = np.empty(down, np.int64), np.empty(down, np.int64)
        first_x, count_x = np.empty(across, np.int64), np.empty(across, np.int64)
        weight_y, weight_x = np.empty((down, height + 2), real), np.empty((across, width + 2), real)
        region = np.empty((down * across, end - begin), real)
        for row in range(len(rows)):
            m = rows[row]
            weights(frame[m, 1], frame[m, 3], down, ratio, height, first_y, count_y, weight_y)
            weights(frame[m, 0], frame[m, 2], across, ratio, width, first_x, count_x, weight_x)
            for c in range(end - begin):
                for p in range(down):
                    for q in range(across):
                        region[p * across + q, c] = upstream[m, begin + c, p, q]
            for p in range(down):
                for q in range(across):
                    cell = region[p * across + q]
                    for i in range(count_y[p]):
                        for j in range(count_x[q]):
                            weight = weight_y[p, i] * weight_x[q, j]
                            feature = x[image[m], first_y[p] + i, first_x[q] + j, begin:end]
                            for c in range(end - begin):
                                feature[c] += weight * cell[c]

    return forward, backward


KERNELS = {torch.float32: _kernels(np.float32), torch.float64: _kernels(np.float64)}


def _in_threads(work: Sequence[Callable[[], None]]) -> None:
    """Run all pieces, the first in this thread; a pool of threads would not survive the fork of a loader's worker."""
    threads = [threading.Thread(target=piece) for piece in work[1:]]
    for thread in threads:
        thread.start()
    work[0]()
    for thread in threads:
        thread.join()


def _pieces(count: int, least: int) -> list[tuple[int, int]]:
    """0..count in as many ranges as torch has threads, each of at least `least`."""
    parts = max(1, min(torch.get_num_threads(), count // least))
    return list(itertools.pairwise(count * part // parts for part in range(parts + 1)))


def _frames(boxes: Tensor, scale: float, aligned: bool, dtype: torch.dtype) -> np.ndarray:
    """x and y of the first corner, width and height [M, 4] of each box in a level's features."""
    corners = boxes.to(dtype) * scale - (0.5 if aligned else 0.0)
    side = corners[:, 2:] - corners[:, :2]
    return torch.cat([corners[:, :2], side if aligned else side.clamp(min=1)], dim=1).numpy()


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
    regions = features[0].new_zeros(len(boxes), features[0].shape[1], height, width)
    forward, _ = KERNELS[regions.dtype]
    images, target = image.contiguous().numpy(), regions.numpy()
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = torch.nonzero(level == number).squeeze(1).numpy()
        if len(rows):
            x_NHWC = feature.detach().permute(0, 2, 3, 1).contiguous().numpy()
            frame = _frames(boxes, scale, aligned, regions.dtype)
            _in_threads([partial(forward, x_NHWC, frame, images, rows[a:b], ratio, target) for a, b in _pieces(len(rows), 16)])
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
    _, backward = KERNELS[upstream.dtype]
    source, images, gradients = upstream.contiguous().numpy(), image.contiguous().numpy(), []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = torch.nonzero(level == number).squeeze(1).numpy()
        count, channels, height, width = feature.shape
        gradient_NHWC = feature.new_zeros(count, height, width, channels)
        if len(rows):
            frame, target = _frames(boxes, scale, aligned, upstream.dtype), gradient_NHWC.numpy()
            _in_threads([partial(backward, source, frame, images, rows, ratio, a, b, target) for a, b in _pieces(channels, 32)])
        gradients.append(gradient_NHWC.permute(0, 3, 1, 2).contiguous(memory_format=layout_of(features)))
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
on_cuda("roi_align", "roi_align", "forward")
on_cuda("roi_align_backward", "roi_align", "backward")


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
    layout = layout_of(features)
    return [torch.empty_like(feature, memory_format=layout) for feature in features]


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
