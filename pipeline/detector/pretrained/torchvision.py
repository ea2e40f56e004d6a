"""torchvision's parameters under our names: its Faster, Mask and Keypoint R-CNN and RetinaNet, and its ResNets.

Facts: the module tree of torchvision.models.detection (0.29), and the older one without `Conv2dNormActivation` that the files on
its servers have. Three differences are not names:

- Its class 0 is background, ours is the last: rows of class-dependent layers move. RetinaNet's class 0 is never trained: dropped.
- Its anchors of a cell run by ratio, then size; ours by size, then ratio: channels of the heads over anchors move.
- Its published COCO detectors without "v2" compute frozen norms without eps (`backbone.norm_eps`), and number 90 classes as COCO
  does, 80 of which exist.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipeline.errors import DataError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

RESNET: tuple[Rule, ...] = (
    (r"conv1\.(weight)", r"stem.conv1.\1"),
    (r"bn1\.(\w+)", r"stem.conv1.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.{m[4]}"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm.{m[4]}"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.{m[3]}"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm.{m[3]}"),
)
"""A ResNet's own names -> names below our `bottom_up`. Whole names; the first rule that matches says the new one."""

HEADS: tuple[Rule, ...] = (
    (r"backbone\.fpn\.extra_blocks\.(p[67]\.\w+)", r"backbone.top_block.\1"),
    # two stages
    (r"rpn\.head\.conv(?:\.0\.0)?\.(\w+)", r"proposal_generator.rpn_head.conv.\1"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (r"roi_heads\.box_head\.fc([67])\.(\w+)", lambda m: f"roi_heads.box_head.fc{int(m[1]) - 5}.{m[2]}"),
    (r"roi_heads\.box_predictor\.(cls_score|bbox_pred)\.(\w+)", r"roi_heads.box_predictor.\1.\2"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.{m[2]}"),
    (r"roi_heads\.mask_head\.(mask_fcn\d\.\w+)", r"roi_heads.mask_head.\1"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
    (r"roi_heads\.keypoint_head\.(\d+)\.(\w+)", lambda m: f"roi_heads.keypoint_head.conv_fcn{int(m[1]) // 2 + 1}.{m[2]}"),
    (r"roi_heads\.keypoint_predictor\.kps_score_lowres\.(\w+)", r"roi_heads.keypoint_head.score_lowres.\1"),
    # RetinaNet: towers of (convolution, ReLU)
    (r"head\.classification_head\.conv\.(\d)\.0\.(\w+)", lambda m: f"head.cls_subnet.{2 * int(m[1])}.{m[2]}"),
    (r"head\.classification_head\.conv\.(\d)\.(weight|bias)", r"head.cls_subnet.\1.\2"),
    (r"head\.regression_head\.conv\.(\d)\.0\.(\w+)", lambda m: f"head.bbox_subnet.{2 * int(m[1])}.{m[2]}"),
    (r"head\.regression_head\.conv\.(\d)\.(weight|bias)", r"head.bbox_subnet.\1.\2"),
    (r"head\.classification_head\.cls_logits\.(\w+)", r"head.cls_score.\1"),
    (r"head\.regression_head\.bbox_reg\.(\w+)", r"head.bbox_pred.\1"),
)

BACKGROUND_LAST = ("roi_heads.box_predictor.cls_score.",)
WITHOUT_BACKGROUND = ("roi_heads.box_predictor.bbox_pred.", "roi_heads.mask_head.predictor.")
OVER_ANCHORS = (
    "proposal_generator.rpn_head.objectness_logits.",
    "proposal_generator.rpn_head.anchor_deltas.",
    "head.cls_score.",
    "head.bbox_pred.",
)
CLASS_DEPENDENT = (*BACKGROUND_LAST, *WITHOUT_BACKGROUND, "head.cls_score.")
ABSENT_FROM_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids from 1 to 90 that COCO's annotations leave out."""


def is_torchvision_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a torchvision detector on a ResNet."""
    return "backbone.body.conv1.weight" in state


def is_torchvision_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a torchvision ResNet."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def resnet_from_torchvision(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A ResNet's parameters by our names below `bottom_up`, and the names without a place: the classifier."""
    wanted = {name: value for name, value in state.items() if not name.startswith("fc.")}
    return _without_counters(_renamed(wanted, RESNET)), tuple(name for name in state if name.startswith("fc."))


def detector_from_torchvision(state: Mapping[str, Tensor], sizes_per_cell: int, classes: int) -> dict[str, Tensor]:
    """A detector's parameters by our names and in our layouts.

    `sizes_per_cell` is the number of anchor sizes at a cell of a level. `classes` is the model's class count: with 80, a file of
    COCO's 90 numbers gives the 80 that exist. Names that no rule knows stay as they are, for the loader to list.
    """
    levels = 1 + max(int(number) for number in re.findall(r"fpn\.inner_blocks\.(\d)\.", "\n".join(state)))
    first = 6 - levels  # the last pyramid level with a lateral connection is p5
    pyramid: tuple[Rule, ...] = (
        (
            r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(weight|bias)",
            lambda m: f"backbone.fpn_lateral{int(m[1]) + first}.{m[2]}",
        ),
        (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(weight|bias)", lambda m: f"backbone.fpn_output{int(m[1]) + first}.{m[2]}"),
    )
    body = {name.removeprefix("backbone.body."): value for name, value in state.items() if name.startswith("backbone.body.")}
    rest = {name: value for name, value in state.items() if not name.startswith("backbone.body.")}
    renamed = {f"backbone.bottom_up.{name}": value for name, value in _renamed(body, RESNET).items()}
    renamed |= _renamed(rest, (*pyramid, *HEADS))
    deltas = next((renamed[name] for name in renamed if name.endswith(("anchor_deltas.bias", "head.bbox_pred.bias"))), None)
    if deltas is None:
        raise DataError("torchvision state dict", "holds no head over anchors: neither rpn.head nor head.regression_head")
    anchors = len(deltas) // 4
    for name, value in renamed.items():
        if name.startswith(OVER_ANCHORS):
            value = _by_size_then_ratio(value, anchors, sizes_per_cell)
        renamed[name] = _without_background(name, value, anchors)
    if classes == 80:
        renamed = {name: _coco_80(name, value, anchors) for name, value in renamed.items()}
    return _without_counters(renamed)


def _renamed(state: Mapping[str, Tensor], rules: tuple[Rule, ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        matches = ((re.fullmatch(pattern, name), new) for pattern, new in rules)
        match, new = next(((match, new) for match, new in matches if match), (None, name))
        renamed[match.expand(new) if match and isinstance(new, str) else new(match) if match and callable(new) else name] = value
    return renamed


def _by_size_then_ratio(value: Tensor, anchors: int, sizes: int) -> Tensor:
    """Rows [ratios * sizes * each, ...] as [sizes * ratios * each, ...]."""
    rows = value.unflatten(0, (anchors // sizes, sizes, -1))
    return rows.transpose(0, 1).flatten(0, 2).contiguous()


def _without_background(name: str, value: Tensor, anchors: int) -> Tensor:
    if name.startswith(BACKGROUND_LAST):
        return torch.cat([value[1:], value[:1]])
    if name.startswith("roi_heads.box_predictor.bbox_pred."):
        return value[4:]
    if name.startswith("roi_heads.mask_head.predictor."):
        return value[1:]
    if name.startswith("head.cls_score."):
        return value.unflatten(0, (anchors, -1))[:, 1:].flatten(0, 1).contiguous()
    return value


def _coco_80(name: str, value: Tensor, anchors: int) -> Tensor:
    """Rows of the 80 existing classes where the file has COCO's 90 numbers."""
    if not name.startswith(CLASS_DEPENDENT):
        return value
    groups = anchors if name.startswith("head.cls_score.") else 1
    background = int(name.startswith(BACKGROUND_LAST))
    each = 4 if name.startswith("roi_heads.box_predictor.bbox_pred.") else 1
    if len(value) != groups * (90 + background) * each:
        return value
    kept = [k for k in range(90 + background) if k + 1 not in ABSENT_FROM_COCO]
    return value.unflatten(0, (groups, 90 + background, each))[:, kept].flatten(0, 2).contiguous()


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the norms' counts of batches, which no feature depends on."""
    return {name: value for name, value in state.items() if not name.endswith(".num_batches_tracked")}
