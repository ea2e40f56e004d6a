"""The detector's own operators: batch-aware functions over `torch.library` ops, each one file from method to registration.

CUDA kernels are registered in the op's own file; until an op has one its docstring says how CUDA tensors are served.
"""

from collections.abc import Callable
from typing import Any

from ops_cuda.box_iou import aligned_box_iou, box_iou
from ops_cuda.match_boxes import match_boxes, match_ious
from ops_cuda.nms import nms
from ops_cuda.nms import onnx_translation as _nms_translation
from ops_cuda.nms_rotated import nms_rotated
from ops_cuda.rasterise_polygons import rasterise_polygons
from ops_cuda.roi_align import onnx_translation as _roi_align_translation
from ops_cuda.roi_align import pyramid_level, roi_align
from ops_cuda.roi_align_rotated import roi_align_rotated
from ops_cuda.rotated_box_iou import rotated_box_iou
from ops_cuda.sigmoid_focal_loss import sigmoid_focal_loss
from ops_cuda.swap_align2nat import swap_align2nat
from ops_cuda.true_rows import onnx_translation as _true_rows_translation
from ops_cuda.true_rows import true_rows

__all__ = [
    "aligned_box_iou",
    "box_iou",
    "match_boxes",
    "match_ious",
    "nms",
    "nms_rotated",
    "onnx_translations",
    "pyramid_level",
    "rasterise_polygons",
    "roi_align",
    "roi_align_rotated",
    "rotated_box_iou",
    "sigmoid_focal_loss",
    "swap_align2nat",
    "true_rows",
]


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Op -> onnxscript function, for `custom_translation_table` of `torch.onnx.export(dynamo=True)`. Imports onnxscript."""
    return dict(translation() for translation in (_nms_translation, _roi_align_translation, _true_rows_translation))
