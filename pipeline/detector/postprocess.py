"""From the network's frame to the pictures' own: outside the ONNX graph."""

import torch
from torch import Tensor

from pipeline.detector.box_coding import clip_boxes, is_larger
from pipeline.detector.sampling import take_rows
from pipeline.structures import Detections


def postprocess(detections: Detections, sizes_N2: Tensor, out_sizes_N2: Tensor) -> Detections:
    """Rescale boxes from (height, width) `sizes` to `out_sizes`, clip, drop empty boxes and close the gaps.

    `sizes` are those of the resized picture without padding. The order by score is kept.
    """
    scale_N2 = (out_sizes_N2.double() / sizes_N2.double()).to(detections.boxes_ND4.dtype).flip(1)
    boxes_ND4 = clip_boxes(detections.boxes_ND4 * scale_N2.repeat(1, 2).unsqueeze(1), out_sizes_N2)
    slot_D = torch.arange(boxes_ND4.shape[1], device=boxes_ND4.device)
    real_ND = (slot_D < detections.count_N.unsqueeze(1)) & is_larger(boxes_ND4, 0)
    order_ND = (~real_ND).to(torch.int8).argsort(dim=1, stable=True)
    real_ND = real_ND.gather(1, order_ND)
    return Detections(
        boxes_ND4=take_rows(boxes_ND4, order_ND).masked_fill(~real_ND.unsqueeze(-1), 0),
        scores_ND=detections.scores_ND.gather(1, order_ND).masked_fill(~real_ND, 0),
        labels_ND=detections.labels_ND.gather(1, order_ND).masked_fill(~real_ND, -1),
        count_N=real_ND.sum(dim=1),
        finite_N=detections.finite_N,
    )
