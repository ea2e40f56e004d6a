"""torchvision's detectors with random weights that find much, for benchmarks and tests: nothing is downloaded."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn


def backbone(depth: int, **options: Any) -> nn.Module:
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
        anchors = detection.retinanet._default_anchorgen()
        peer: nn.Module = detection.RetinaNet(body, classes + 1, anchor_generator=anchors, **sizes, **options)
    else:
        kinds = {"faster_rcnn": detection.FasterRCNN, "mask_rcnn": detection.MaskRCNN, "keypoint_rcnn": detection.KeypointRCNN}
        peer = kinds[kind](backbone(depth), classes + 1, **sizes, **options)
    enliven(peer, side)
    return peer.eval()


@torch.no_grad()
def enliven(peer: Any, side: int) -> None:
    """Heads whose outputs differ from region to region: many proposals, classes and scores on pictures of noise."""
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.rand(3, side, side, generator=generator) for _ in range(2)]
    for name, module in peer.backbone.body.named_modules():
        if name.endswith(("bn3", "bn2")) and hasattr(module, "running_var"):
            module.weight.fill_(0.4)  # else each block would double the features
        if hasattr(module, "running_mean"):
            module.running_mean.copy_(torch.randn(len(module.running_mean), generator=generator) * 0.05)
    peer.eval()
    for block in peer.backbone.fpn.layer_blocks:
        spread(peer, block[0], pictures, 1.0)
    if hasattr(peer, "rpn"):
        spread(peer, peer.rpn.head.conv[0][0], pictures, 1.0)
        spread(peer, peer.rpn.head.cls_logits, pictures, 2.0)
        spread(peer, peer.rpn.head.bbox_pred, pictures, 0.15)
        spread(peer, peer.roi_heads.box_head.fc6, pictures, 1.0)
        spread(peer, peer.roi_heads.box_head.fc7, pictures, 1.0)
        spread(peer, peer.roi_heads.box_predictor.cls_score, pictures, 2.5)
        spread(peer, peer.roi_heads.box_predictor.bbox_pred, pictures, 0.5)
        if peer.roi_heads.mask_predictor is not None:
            spread(peer, peer.roi_heads.mask_predictor.mask_fcn_logits, pictures, 2.0)
        return
    for head, last, size in (("classification_head", "cls_logits", 1.5), ("regression_head", "bbox_reg", 0.3)):
        tower = getattr(peer.head, head)
        for block in tower.conv:
            spread(peer, block[0], pictures, 1.0)
        spread(peer, getattr(tower, last), pictures, size)
    peer.head.classification_head.cls_logits.bias.sub_(4.0).view(9, -1)[:, 0] = -30.0  # its class 0 is never found


def spread(peer: nn.Module, layer: Any, pictures: list[Tensor], size: float) -> None:
    """Scale and shift a layer so that its outputs have mean 0 per channel and deviation `size`."""
    outputs: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)
        raise StopIteration  # what comes after the layer is not needed

    hook = layer.register_forward_hook(keep)
    with contextlib.suppress(StopIteration):
        peer([picture.clone() for picture in pictures])
    hook.remove()
    rows = torch.cat([o.movedim(1, -1).flatten(0, -2) for o in outputs])
    mean, factor = rows.mean(dim=0), size / (rows - rows.mean(dim=0)).std()
    if layer.bias is None:
        layer.weight.mul_(factor)
    else:
        layer.bias.copy_((layer.bias - mean) * factor)
        layer.weight.mul_(factor)
