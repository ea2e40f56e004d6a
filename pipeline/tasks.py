"""What a detector can learn and find. Each is the prefix of its figures in metrics.json. No torch."""

from typing import Literal

Task = Literal["bbox", "segm", "keypoints", "semantic", "panoptic", "rotated", "densepose", "proposals"]

BOXES: tuple[Task, ...] = ("bbox",)
"""What every detector of boxes finds."""
FIGURE: dict[Task, str] = {
    "bbox": "AP",
    "segm": "AP",
    "keypoints": "AP",
    "semantic": "mIoU",
    "panoptic": "PQ",
    "rotated": "AP",
    "densepose": "GPS_AP",
    "proposals": "AR100",
}
"""The figure that decides: gates and comparisons read `<task>/<figure>`."""
TITLE: dict[Task, str] = {
    "bbox": "boxes",
    "segm": "masks",
    "keypoints": "keypoints",
    "semantic": "semantic maps",
    "panoptic": "panoptic maps",
    "rotated": "rotated boxes",
    "densepose": "dense poses",
    "proposals": "proposals",
}
"""For people."""
