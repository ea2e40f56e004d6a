"""From the network's frame to the pictures' own: outside the ONNX graph. `pipeline.predict.postprocess` is the numpy twin."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda import decode_keypoints
from pipeline.detector.box_coding import clip_boxes, is_larger
from pipeline.detector.rotated.geometry import clip_rotated, has_sides, scale_rotated
from pipeline.detector.sampling import take_rows
from pipeline.structures import Detections, RotatedDetections


def postprocess(detections: Detections, sizes_N2: Tensor, out_sizes_N2: Tensor) -> Detections:
    """Rescale boxes from (height, width) `sizes` to `out_sizes`, clip, drop empty boxes and close the gaps.

    `sizes` are those of the resized picture without padding. The order by score is kept. Masks stay in their boxes' frames:
    `ops_cuda.paste_masks` brings one picture's to full size. Heatmaps become keypoints, which are not clipped.
    """
    detections = _with_keypoints(detections)
    scale_N2 = (out_sizes_N2.double() / sizes_N2.double()).to(detections.boxes_ND4.dtype).flip(1)
    boxes_ND4 = clip_boxes(detections.boxes_ND4 * scale_N2.repeat(1, 2).unsqueeze(1), out_sizes_N2)
    slot_D = torch.arange(boxes_ND4.shape[1], device=boxes_ND4.device)
    real_ND = (slot_D < detections.count_N.unsqueeze(1)) & is_larger(boxes_ND4, 0)
    order_ND = (~real_ND).to(torch.int8).argsort(dim=1, stable=True)
    real_ND = real_ND.gather(1, order_ND)

    optional = detections.optional()
    if detections.keypoints_NDK3 is not None:
        scale_N3 = torch.cat([scale_N2, torch.ones_like(scale_N2[:, :1])], dim=1)
        optional["keypoints_NDK3"] = detections.keypoints_NDK3 * scale_N3[:, None, None]

    def closed(values_NDx: Tensor) -> Tensor:
        taken = take_rows(values_NDx, order_ND)
        return taken.masked_fill(~real_ND.view(*real_ND.shape, *([1] * (taken.dim() - 2))), 0)

    return Detections(
        boxes_ND4=closed(boxes_ND4),
        scores_ND=closed(detections.scores_ND),
        labels_ND=detections.labels_ND.gather(1, order_ND).masked_fill(~real_ND, -1),
        count_N=real_ND.sum(dim=1),
        finite_N=detections.finite_N,
        **{name: closed(values) for name, values in optional.items()},
    )


def postprocess_rotated(found: RotatedDetections, sizes_N2: Tensor, out_sizes_N2: Tensor) -> RotatedDetections:
    """`postprocess` of rotated boxes."""
    scale_N2 = (out_sizes_N2.double() / sizes_N2.double()).to(found.boxes_ND5.dtype).flip(1)
    boxes_ND5 = clip_rotated(scale_rotated(found.boxes_ND5, scale_N2), out_sizes_N2)
    slot_D = torch.arange(boxes_ND5.shape[1], device=boxes_ND5.device)
    real_ND = (slot_D < found.count_N.unsqueeze(1)) & has_sides(boxes_ND5, 0)
    order_ND = (~real_ND).to(torch.int8).argsort(dim=1, stable=True)
    real_ND = real_ND.gather(1, order_ND)
    return RotatedDetections(
        boxes_ND5=take_rows(boxes_ND5, order_ND).masked_fill(~real_ND.unsqueeze(-1), 0),
        scores_ND=take_rows(found.scores_ND, order_ND).masked_fill(~real_ND, 0),
        labels_ND=take_rows(found.labels_ND, order_ND).masked_fill(~real_ND, -1),
        count_N=real_ND.sum(dim=1),
        finite_N=found.finite_N,
    )


def _with_keypoints(detections: Detections) -> Detections:
    """The same detections with keypoints in the network's frame in place of heatmaps."""
    if detections.heatmaps_NDKMM is None:
        return detections
    points_RK4 = decode_keypoints(detections.heatmaps_NDKMM.flatten(0, 1), detections.boxes_ND4.flatten(0, 1))
    keypoints_NDK3 = points_RK4[..., [0, 1, 3]].unflatten(0, detections.scores_ND.shape)
    return replace(detections, heatmaps_NDKMM=None, keypoints_NDK3=keypoints_NDK3)


def surface_coordinates(
    coarse_CMM: Tensor, fine_CMM: Tensor, u_CMM: Tensor, v_CMM: Tensor, box_4: Tensor
) -> tuple[Tensor, Tensor]:
    """One detection's dense pose in its box: part of every pixel [H, W] (0 background) and its (u, v) [2, H, W].

    The box is cut to whole pixels, at least one. Maps are resized bilinearly; a pixel shows its best part where the coarse
    segmentation's best is not the background.
    """
    width, height = (max(1, int(side)) for side in (box_4[2:] - box_4[:2]).tolist())

    def resized(values_CMM: Tensor) -> Tensor:
        return functional.interpolate(values_CMM.unsqueeze(0), (height, width), mode="bilinear", align_corners=False)[0]

    parts_HW = resized(fine_CMM).argmax(dim=0) * (resized(coarse_CMM).argmax(dim=0) > 0)
    uv_2HW = torch.stack([resized(values).gather(0, parts_HW.unsqueeze(0))[0] for values in (u_CMM, v_CMM)])
    return parts_HW, torch.where(parts_HW > 0, uv_2HW, torch.zeros_like(uv_2HW))
