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


SAMPLES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "box_iou_pairs": lambda: (_boxes(2, 40), _boxes(1, 30), "ciou"),
    "class_focal_loss": lambda: (_uniform(2, 300, 7), _whole(9, 2, 300) - 2, 0.25, 2.0),
    "match_boxes": lambda: (_boxes(1, 700), _boxes(3, 9), torch.ones(3, 9, dtype=torch.bool), [0.3, 0.7], [0, -1, 1], True),
    "merge_panoptic": lambda: (
        *(_uniform(2, 9, 7, 7), _boxes(2, 9), _uniform(2, 9).sort(1, descending=True).values, torch.tensor([9, 5])),
        *(_whole(4, 2, 90, 120), torch.tensor([[90, 120], [70, 80]]), 4, 0.5, 50.0, 0.2),
    ),
    "nms": lambda: (_boxes(2, 300), _uniform(2, 300), _whole(3, 2, 300), 3, 0.5, 100),
    "nms_rotated": lambda: (_rotated(2, 200), _uniform(2, 200), _whole(3, 2, 200), 3, 0.5, 100),
    "paste_masks": lambda: (_uniform(9, 14, 14), _boxes(9), 90, 120),
    "paste_rle": lambda: (_uniform(9, 14, 14), _boxes(9), 90, 120, 5000),
    "roi_align": lambda: (_pyramid(), _boxes(60), *_regions(), 7, 7, 0, True),
    "roi_align_backward": lambda: (_uniform(60, 8, 7, 7), _pyramid(), _boxes(60), *_regions(), 0, True),
    "roi_align_rotated": lambda: (_pyramid(), _rotated(60), *_regions(), 7, 7, 0),
    "roi_align_rotated_backward": lambda: (_uniform(60, 8, 7, 7), _pyramid(), _rotated(60), *_regions(), 0),
    "rotated_box_iou": lambda: (_rotated(2, 40), _rotated(1, 30)),
    "sigmoid_focal_loss": lambda: (_uniform(300, 7), _whole(2, 300, 7).float(), 0.25, 2.0),
    "sigmoid_focal_loss_backward": lambda: (_uniform(300, 7), _uniform(300, 7), _whole(2, 300, 7).float(), 0.25, 2.0),
    "soft_nms": lambda: (_boxes(2, 60), _uniform(2, 60), _whole(3, 2, 60), 3, 1, 0.5, 0.01, 100),
}
