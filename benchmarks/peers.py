"""torchvision's detectors with random weights that find much, for benchmarks and tests: nothing is downloaded."""

from typing import Any

import torch
from torch import nn


def backbone(depth: int = 50, **options: Any) -> nn.Module:
    """A ResNet-FPN with frozen norms and the last three stages trained, as torchvision builds it around pretrained weights."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name=f"resnet{depth}", weights=None, trainable_layers=3, **options)


def make_peer(kind: str, classes: int, side: int, depth: int = 50, seed: int = 0, **options: Any) -> nn.Module:
    """torchvision's `kind` for square pictures of `side` pixels, which it does not resize; class 0 is its background."""
    from torchvision.models import detection
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(seed)
    sizes = {"min_size": side, "max_size": side}
    if kind == "retinanet":
        body = backbone(depth, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        peer: nn.Module = detection.RetinaNet(body, classes + 1, **sizes, **options)
    else:
        kinds = {"faster_rcnn": detection.FasterRCNN, "mask_rcnn": detection.MaskRCNN, "keypoint_rcnn": detection.KeypointRCNN}
        peer = kinds[kind](backbone(depth), classes + 1, **sizes, **options)
    enliven(peer, side)
    return peer.eval()


@torch.no_grad()
def enliven(peer: nn.Module, side: int) -> None:
    """Norms that keep features of size one, and heads whose outputs differ: many proposals, classes and scores."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, 3, side, side, generator=generator) * 4 - 2
    for name, module in peer.backbone.body.named_modules():  # type: ignore[union-attr, operator]
        if name.endswith(("bn3", "bn2")) and hasattr(module, "running_var"):
            module.weight.fill_(0.4)
        if hasattr(module, "running_mean"):
            module.running_mean.copy_(torch.randn(len(module.running_mean), generator=generator) * 0.05)
    levels = peer.backbone(pictures)
    for block in peer.backbone.fpn.layer_blocks:  # type: ignore[union-attr]
        size = torch.cat([level.flatten() for level in levels.values()]).std()
        block[0].weight.div_(size)
    gains = {  # spread of a layer's outputs; small deltas keep the boxes apart
        "rpn.head.conv.0.0.weight": 1.0,
        "rpn.head.cls_logits.weight": 2.0,
        "rpn.head.bbox_pred.weight": 0.1,
        "box_predictor.cls_score.weight": 3.0,
        "box_predictor.bbox_pred.weight": 1.0,
        "mask_fcn_logits.weight": 2.0,
        "cls_logits.weight": 1.5,
        "bbox_reg.weight": 0.1,
    }
    for name, parameter in peer.named_parameters():
        gain = next((gain for ending, gain in gains.items() if name.endswith(ending)), None)
        if gain is None and "_head.conv." in name and parameter.dim() == 4:
            gain = 2**0.5
        if gain is not None:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (gain / parameter[0].numel() ** 0.5))
        if name.endswith("classification_head.cls_logits.bias"):
            parameter.fill_(-4.0).view(9, -1)[:, 0] = -30.0  # its class 0 is background: never found
