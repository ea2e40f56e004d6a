"""The detector's own operators: batch-aware functions over `torch.library` ops, each one file from method to registration.

CUDA tensors are served by `ops_cuda.kernels`, a module per op that is imported at its first call.
"""

from collections.abc import Callable
from typing import Any

from ops_cuda.box_iou import aligned_box_iou, box_iou
from ops_cuda.crop_bitmaps import crop_bitmaps
from ops_cuda.decode_keypoints import decode_keypoints
from ops_cuda.deform_conv2d import deform_conv2d
from ops_cuda.deform_conv2d import onnx_translation as _deform_conv2d_translation
from ops_cuda.mask_iou import mask_iou
from ops_cuda.match_boxes import match_boxes, match_ious
from ops_cuda.merge_panoptic import merge_panoptic
from ops_cuda.nms import nms
from ops_cuda.nms import onnx_translation as _nms_translation
from ops_cuda.nms_rotated import nms_rotated
from ops_cuda.paste_masks import paste_masks, paste_rle
from ops_cuda.point_sample import onnx_translation as _point_sample_translation
from ops_cuda.point_sample import point_sample
from ops_cuda.rasterise_polygons import rasterise_polygons
from ops_cuda.rle import decode_rle, encode_rle
from ops_cuda.roi_align import onnx_translation as _roi_align_translation
from ops_cuda.roi_align import pyramid_level, roi_align
from ops_cuda.roi_align_rotated import roi_align_rotated
from ops_cuda.roi_pool import onnx_translation as _roi_pool_translation
from ops_cuda.roi_pool import roi_pool
from ops_cuda.rotated_box_iou import rotated_box_iou
from ops_cuda.sample_bitmaps import sample_bitmaps
from ops_cuda.sigmoid_focal_loss import class_focal_loss, sigmoid_focal_loss
from ops_cuda.soft_nms import Decay, soft_nms
from ops_cuda.swap_align2nat import swap_align2nat
from ops_cuda.true_rows import onnx_translation as _true_rows_translation
from ops_cuda.true_rows import true_rows

__all__ = [
    "Decay",
    "aligned_box_iou",
    "box_iou",
    "class_focal_loss",
    "crop_bitmaps",
    "decode_keypoints",
    "decode_rle",
    "deform_conv2d",
    "encode_rle",
    "mask_iou",
    "match_boxes",
    "match_ious",
    "merge_panoptic",
    "nms",
    "nms_rotated",
    "onnx_translations",
    "paste_masks",
    "paste_rle",
    "point_sample",
    "pyramid_level",
    "rasterise_polygons",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
    "rotated_box_iou",
    "sample_bitmaps",
    "sigmoid_focal_loss",
    "soft_nms",
    "swap_align2nat",
    "true_rows",
]


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Op -> onnxscript function, for `custom_translation_table` of `torch.onnx.export(dynamo=True)`. Imports onnxscript."""
    translations = (
        _deform_conv2d_translation,
        _nms_translation,
        _point_sample_translation,
        _roi_align_translation,
        _roi_pool_translation,
        _true_rows_translation,
    )
    return dict(translation() for translation in translations)
