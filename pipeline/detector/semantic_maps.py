"""Maps of classes and segments in the pictures' own frame: outside the ONNX graph; `pipeline.predict.panoptic` in torch."""

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda import merge_panoptic
from pipeline.detector.postprocess import postprocess
from pipeline.structures import Panoptic, SegmentMaps


def picture_logits(logits_Chw: Tensor, stride: int, size: tuple[int, int], out_size: tuple[int, int]) -> Tensor:
    """Logits [C, H, W] of one picture: upsampled by `stride`, cut to `size` (height, width inside the network's input), then
    brought to `out_size`; bilinear each time."""
    full = functional.interpolate(logits_Chw[None], scale_factor=float(stride), mode="bilinear", align_corners=False)
    cut = full[:, :, : size[0], : size[1]]
    return functional.interpolate(cut, size=out_size, mode="bilinear", align_corners=False)[0]


def merge(
    found: Panoptic, stride: int, sizes_N2: Tensor, out_sizes_N2: Tensor, overlap: float, stuff_area: float, score: float
) -> SegmentMaps:
    """The segments of a batch's pictures, in their own pixels (`out_sizes`); `sizes` are those inside the network's input."""
    placed = postprocess(found.detections, sizes_N2, out_sizes_N2)
    if placed.masks_NDMM is None:
        raise ValueError("panoptic maps need masks of things")
    logits_NChw = found.semantic.logits_NChw
    height, width = out_sizes_N2.amax(dim=0).tolist()
    classes_NHW = torch.zeros(len(logits_NChw), height, width, dtype=torch.int64, device=logits_NChw.device)
    for n, (size, out) in enumerate(zip(sizes_N2.tolist(), out_sizes_N2.tolist(), strict=True)):
        classes_NHW[n, : out[0], : out[1]] = picture_logits(logits_NChw[n], stride, tuple(size), tuple(out)).argmax(dim=0)
    ids_NHW, owner_NS, count_N = merge_panoptic(
        placed.masks_NDMM,
        placed.boxes_ND4,
        placed.scores_ND,
        placed.count_N,
        classes_NHW,
        out_sizes_N2,
        logits_NChw.shape[1],
        overlap,
        stuff_area,
        score,
    )
    rows = placed.labels_ND.shape[1]
    thing_NS = (owner_NS >= 0) & (owner_NS < rows)
    label_NS = torch.where(thing_NS, placed.labels_ND.gather(1, owner_NS.clamp(0, max(rows - 1, 0))), owner_NS - rows)
    return SegmentMaps(ids_NHW, thing_NS, torch.where(owner_NS >= 0, label_NS, -1), count_N)
