"""All planters. Importing a family enters its planters."""

from benchmarks.faults import boxes, files, keypoints, looks, masks, runs, spread, structure
from benchmarks.faults.planter import PLANTERS

FAMILIES = (structure, boxes, masks, runs, keypoints, files, looks, spread)
NOT_PLANTED: dict[str, str] = {
    "class-below-cell": "it asks what the chosen model's input leaves of the objects; here no model is chosen"
}
"""Checks without a planter, by code, and why."""

__all__ = ["FAMILIES", "NOT_PLANTED", "PLANTERS"]
