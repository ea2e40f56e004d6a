"""ROIAlign of rotated boxes (cx, cy, w, h, degrees) over the levels of a feature pyramid.

What: each box is averaged from its own level's features, bilinear samples in size x size cells of the turned rectangle, rows
along its height. Coordinates are continuous (shifted by half a pixel); there is no least size. `sampling_ratio` 0 is adaptive:
ceil(box side / size) samples a side. A box on level -1 (padding) costs nothing and gives zeros.
Limits: float32 and float64 features; positions are computed in the features' type.
Source: He et al. 2017 (Mask R-CNN) on the turned regions of Ma et al. 2018 (RRPN). No ONNX form: rotated detectors export what
comes before it.
CUDA: one launch for all levels (up to 6) each way; half types too, computed in float32; gradients are added atomically.
"""

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, layout_of, on_cuda
from ops_cuda.roi_align import samples_of


def roi_align_rotated(
    features_NCHW: Sequence[Tensor],
    boxes_M5: Tensor,
    image_M: Tensor,
    level_M: Tensor,
    scales: Sequence[float],
    size: tuple[int, int],
    sampling_ratio: int,
) -> Tensor:
    """Region features [M, C, *size] of box m of image `image_M[m]` from level `level_M[m]`, whose pixels are 1/scale wide.

    Gradients flow to the features, none to the boxes.
    """
    height, width = size
    regions: Tensor = torch.ops.detectline.roi_align_rotated(
        list(features_NCHW), boxes_M5.detach(), image_M, level_M, list(scales), height, width, sampling_ratio
    )
    return regions


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _samples(box: np.ndarray, ratio: int, height: int, width: int, rows: int, columns: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Samples per cell, and the four pixels and weights [cells, samples, 4] of each; `box` is in the level's pixels, shifted.

    Weights hold the division by the number of samples. A sample outside the level has weight 0.
    """
    one = box.dtype.type(1)
    down, across = box[3] / (one * height), box[2] / (one * width)
    grid_h, grid_w = samples_of(down, ratio), samples_of(across, ratio)
    count = grid_h * grid_w
    pixel = np.zeros((height * width, count, 4), np.int64)
    weight = np.zeros((height * width, count, 4), box.dtype)
    theta = box[4] * math.pi / 180
    cosine, sine = math.cos(theta), math.sin(theta)
    for cell in range(height * width):
        for sample in range(count):
            v = -box[3] / 2 + (cell // width) * down + (sample // grid_w + 0.5) * down / grid_h
            u = -box[2] / 2 + (cell % width) * across + (sample % grid_w + 0.5) * across / grid_w
            y, x = v * cosine - u * sine + box[1], v * sine + u * cosine + box[0]
            if y < -1 or y > rows or x < -1 or x > columns:
                continue
            y, x = max(y, 0.0), max(x, 0.0)
            top, left = int(y), int(x)
            bottom, right = top + 1, left + 1
            if top >= rows - 1:
                top, bottom, y = rows - 1, rows - 1, float(rows - 1)
            if left >= columns - 1:
                left, right, x = columns - 1, columns - 1, float(columns - 1)
            low, far = y - top, x - left
            pixel[cell, sample, 0], weight[cell, sample, 0] = top * columns + left, (1 - low) * (1 - far) / count
            pixel[cell, sample, 1], weight[cell, sample, 1] = top * columns + right, (1 - low) * far / count
            pixel[cell, sample, 2], weight[cell, sample, 2] = bottom * columns + left, low * (1 - far) / count
            pixel[cell, sample, 3], weight[cell, sample, 3] = bottom * columns + right, low * far / count
    return count, pixel, weight


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _forward_level(
    feature: np.ndarray, boxes: np.ndarray, image: np.ndarray, rows: np.ndarray, columns: int, ratio: int, size: tuple[int, int],
    regions: np.ndarray,
) -> None:  # fmt: skip
    """Regions of the given rows from one level [N, C, H * W]."""
    for m in rows:
        count, pixel, weight = _samples(boxes[m], ratio, size[0], size[1], feature.shape[2] // columns, columns)
        for c in range(feature.shape[1]):
            plane = feature[image[m], c]
            for cell in range(size[0] * size[1]):
                total = plane[0] * 0
                for sample in range(count):
                    for k in range(4):
                        total += weight[cell, sample, k] * plane[pixel[cell, sample, k]]
                regions[m, c, cell] = total


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _backward_level(
    upstream: np.ndarray, boxes: np.ndarray, image: np.ndarray, rows: np.ndarray, columns: int, ratio: int,
    size: tuple[int, int], gradient: np.ndarray,
) -> None:  # fmt: skip
    """Adds the given rows' gradient [M, C, cells] to one level's [N, C, H * W]."""
    for m in rows:
        count, pixel, weight = _samples(boxes[m], ratio, size[0], size[1], gradient.shape[2] // columns, columns)
        for c in range(gradient.shape[1]):
            plane = gradient[image[m], c]
            for cell in range(size[0] * size[1]):
                for sample in range(count):
                    for k in range(4):
                        plane[pixel[cell, sample, k]] += weight[cell, sample, k] * upstream[m, c, cell]


def _shifted(boxes: Tensor, scale: float, dtype: torch.dtype) -> np.ndarray:
    """Boxes in a level's pixel indices."""
    half = torch.tensor([0.5, 0.5, 0, 0, 0], dtype=dtype)
    shifted: np.ndarray = (boxes.to(dtype) * torch.tensor([scale] * 4 + [1.0], dtype=dtype) - half).numpy()
    return shifted


def _forward_cpu(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
) -> Tensor:
    regions = features[0].new_zeros(boxes.shape[0], features[0].shape[1], height * width)
    regions_np, image_np, level_np = regions.numpy(), image.contiguous().numpy(), level.numpy()
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = np.flatnonzero(level_np == number)
        flat = feature.detach().flatten(2).contiguous().numpy()
        shifted = _shifted(boxes, scale, feature.dtype)
        _forward_level(flat, shifted, image_np, rows, feature.shape[3], ratio, (height, width), regions_np)
    return regions.unflatten(2, (height, width))


def _backward_cpu(
    upstream: Tensor, features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], ratio: int
) -> list[Tensor]:
    height, width = upstream.shape[2:]
    upstream_np, image_np, level_np = upstream.flatten(2).contiguous().numpy(), image.contiguous().numpy(), level.numpy()
    gradients = []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        gradient = torch.zeros(feature.shape, dtype=feature.dtype)
        rows = np.flatnonzero(level_np == number)
        shifted = _shifted(boxes, scale, feature.dtype)
        flat = gradient.flatten(2).numpy()
        _backward_level(upstream_np, shifted, image_np, rows, feature.shape[3], ratio, (height, width), flat)
        gradients.append(gradient.contiguous(memory_format=layout_of(features)))
    return gradients


# -- registration: schema, fake, autograd --

LIBRARY.define(
    "roi_align_rotated(Tensor[] features, Tensor boxes, Tensor image, Tensor level, float[] scales, int height, int width, "
    "int sampling_ratio) -> Tensor"
)
LIBRARY.define(
    "roi_align_rotated_backward(Tensor upstream, Tensor[] features, Tensor boxes, Tensor image, Tensor level, float[] scales, "
    "int sampling_ratio) -> Tensor[]"
)
LIBRARY.impl("roi_align_rotated", _forward_cpu, "CPU")
LIBRARY.impl("roi_align_rotated_backward", _backward_cpu, "CPU")
on_cuda("roi_align_rotated", "roi_align_rotated", "forward")
on_cuda("roi_align_rotated_backward", "roi_align_rotated", "backward")


def _fake(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
) -> Tensor:
    return features[0].new_empty(boxes.shape[0], features[0].shape[1], height, width)


def _backward_fake(upstream: Tensor, features: list[Tensor], *_: Any) -> list[Tensor]:
    layout = layout_of(features)
    return [torch.empty_like(feature, memory_format=layout) for feature in features]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, image, level, ctx.scales, _, _, ctx.ratio = inputs
    ctx.save_for_backward(boxes, image, level, *features)


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    boxes, image, level, *features = ctx.saved_tensors
    gradients = torch.ops.detectline.roi_align_rotated_backward(upstream, features, boxes, image, level, ctx.scales, ctx.ratio)
    return (gradients, *([None] * 7))


torch.library.register_fake("detectline::roi_align_rotated", _fake, lib=LIBRARY)
torch.library.register_fake("detectline::roi_align_rotated_backward", _backward_fake, lib=LIBRARY)
torch.library.register_autograd("detectline::roi_align_rotated", _autograd, setup_context=_setup, lib=LIBRARY)
