"""One call of every op with a CUDA form, large enough to have several blocks on a device: for the tests of streams and graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _boxes(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(*shape, 2, generator=generator) * 90
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * 60 + 1], -1)


def _rotated(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(*shape, 5, generator=generator)
    return torch.cat([u[..., :2] * 90, u[..., 2:4] * 60 + 1, u[..., 4:] * 360 - 180], -1)


def _uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def _whole(below: int, *shape: int) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(2))


def _pyramid() -> list[Tensor]:
    return [_uniform(2, 8, side, side) for side in (40, 20)]


def _regions() -> tuple[Tensor, Tensor, list[float]]:
    return _whole(2, 60), _whole(3, 60) - 1, [1 / 4, 1 / 8]


def _runs() -> tuple[Tensor, Tensor]:
    counts, starts = torch.ops.detectline.encode_rle(_masks(9), 5000)
    return counts, starts


def _masks(count: int) -> Tensor:
    """Ellipses."""
    y, x = torch.arange(90).view(-1, 1), torch.arange(120)
    return torch.stack([(x - 9 * n).square() / 9 + (y - 40).square() < 300 for n in range(count)])


def _triangles() -> tuple[Tensor, Tensor, Tensor]:
    """Pools of nine truths with two each."""
    return 90 * _uniform(54, 2).double(), torch.arange(19) * 3, torch.arange(10) * 2


def _truths() -> tuple[Tensor, Tensor, Tensor]:
    """Rows' pictures' sizes, boxes and truths."""
    return torch.tensor([[90, 120]]).expand(60, 2).contiguous(), _boxes(60), _whole(10, 60) - 1


def _deformed() -> tuple[Any, ...]:
    """Features, weight, offsets and mask, and the geometry."""
    return _uniform(2, 32, 40, 30), _uniform(16, 16, 3, 3), _uniform(2, 36, 20, 15) - 0.5, _uniform(2, 18, 20, 15), 2, 1, 1, 2


SAMPLES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "box_iou_pairs": lambda: (_boxes(2, 40), _boxes(1, 30), "ciou"),
    "class_focal_loss": lambda: (_uniform(2, 300, 7), _whole(9, 2, 300) - 2, 0.25, 2.0),
    "crop_bitmaps": lambda: (*_triangles(), *_truths(), 14),
    "decode_keypoints": lambda: (_uniform(9, 5, 14, 14), _boxes(9)),
    "decode_rle": lambda: (*_runs(), 90, 120),
    "deform_conv2d": lambda: _deformed(),
    "deform_conv2d_backward": lambda: (_uniform(2, 16, 20, 15), *_deformed()),
    "encode_rle": lambda: (_masks(9), 5000),
    "mask_iou": lambda: (_masks(9), _masks(5), torch.tensor([False, True, False, False, True])),
    "match_boxes": lambda: (_boxes(1, 700), _boxes(3, 9), torch.ones(3, 9, dtype=torch.bool), [0.3, 0.7], [0, -1, 1], True),
    "merge_panoptic": lambda: (
        *(_uniform(2, 9, 7, 7), _boxes(2, 9), _uniform(2, 9).sort(1, descending=True).values, torch.tensor([9, 5])),
        *(_whole(4, 2, 90, 120), torch.tensor([[90, 120], [70, 80]]), 4, 0.5, 50.0, 0.2),
    ),
    "nms": lambda: (_boxes(2, 300), _uniform(2, 300), _whole(3, 2, 300), 3, 0.5, 100),
    "nms_rotated": lambda: (_rotated(2, 200), _uniform(2, 200), _whole(3, 2, 200), 3, 0.5, 100),
    "paste_masks": lambda: (_uniform(9, 14, 14), _boxes(9), 90, 120),
    "paste_rle": lambda: (_uniform(9, 14, 14), _boxes(9), 90, 120, 5000),
    "point_sample": lambda: (_uniform(2, 8, 30, 40), 50 * _uniform(60, 9, 2) - 5, _whole(2, 60)),
    "point_sample_backward": lambda: (_uniform(60, 8, 9), _uniform(2, 8, 30, 40), 50 * _uniform(60, 9, 2) - 5, _whole(2, 60)),
    "rasterise_polygons": lambda: (*_triangles(), *_truths()[1:], 28),
    "roi_align": lambda: (_pyramid(), _boxes(60), *_regions(), 7, 7, 0, True),
    "roi_align_backward": lambda: (_uniform(60, 8, 7, 7), _pyramid(), _boxes(60), *_regions(), 0, True),
    "roi_align_rotated": lambda: (_pyramid(), _rotated(60), *_regions(), 7, 7, 0),
    "roi_align_rotated_backward": lambda: (_uniform(60, 8, 7, 7), _pyramid(), _rotated(60), *_regions(), 0),
    "roi_pool": lambda: (_pyramid(), _boxes(60), *_regions(), 7, 7),
    "roi_pool_backward": lambda: (
        _uniform(60, 8, 7, 7),
        _pyramid(),
        _boxes(60),
        *_regions()[:2],
        torch.ops.detectline.roi_pool(_pyramid(), _boxes(60), *_regions(), 7, 7)[1],
        _regions()[2],
    ),
    "rotated_box_iou": lambda: (_rotated(2, 40), _rotated(1, 30)),
    "sample_bitmaps": lambda: (*_triangles(), _truths()[0], _truths()[2], 100 * _uniform(60, 9, 2)),
    "sigmoid_focal_loss": lambda: (_uniform(300, 7), _whole(2, 300, 7).float(), 0.25, 2.0),
    "sigmoid_focal_loss_backward": lambda: (_uniform(300, 7), _uniform(300, 7), _whole(2, 300, 7).float(), 0.25, 2.0),
    "swap_align2nat_backward": lambda: (_uniform(2, 6, 6, 10, 9), 3, 2, 20, 18),
    "swap_align2nat_fused": lambda: (_uniform(2, 9, 20, 18), 3, 2, 10, 9, -6.0),
    "soft_nms": lambda: (_boxes(2, 60), _uniform(2, 60), _whole(3, 2, 60), 3, 1, 0.5, 0.01, 100),
}
