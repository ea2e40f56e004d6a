"""From settings to backbones and pyramids."""

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from pipeline.detector.assembly.custom import build_custom, require_has
from pipeline.detector.backbones import STAGES, Deform, ResNet, ResNetStages, timm_backbone
from pipeline.detector.fpn import FPN
from pipeline.detector.norms import FrozenBatchNorm2d
from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, ResNetConfig, TimmConfig
from pipeline.detector.settings.custom import CustomBackboneConfig
from pipeline.errors import ConfigError

HELD = ("frozen", "affine")
"""Norms whose statistics do not move in training."""


def _resnet(cfg: ResNetConfig, stages: tuple[str, ...]) -> tuple[ResNet, tuple[int, ...]]:
    deformed = () if cfg.deform is None else cfg.deform.stages
    deform = None if cfg.deform is None else Deform(cfg.deform.modulated, cfg.deform.groups)
    backbone = ResNet(
        cfg.depth,
        stages,
        norm=cfg.norm,
        freeze_at=cfg.freeze_at,
        stride_in_1x1=cfg.stride_in_1x1,
        groups=cfg.groups,
        width_per_group=cfg.width_per_group,
        stem_channels=cfg.stem_channels,
        res2_channels=cfg.res2_channels,
        res5_dilation=cfg.res5_dilation,
        deform=[deform if stage in deformed else None for stage in STAGES],
    )
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.modules.batchnorm._BatchNorm):
            module.eps = cfg.norm_eps
    return backbone, backbone.channels


def _timm(cfg: TimmConfig, stages: tuple[str, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    return timm_backbone(cfg.name, stages, cfg.norm, cfg.freeze_at)


def _custom(cfg: CustomBackboneConfig, stages: tuple[str, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    backbone = build_custom("backbone", cfg.target, cfg.options, stages)
    require_has("backbone", cfg.target, backbone, "channels", "the channels of each stage's features")
    return backbone, tuple(backbone.channels)


BACKBONES: dict[str, Callable[[Any, tuple[str, ...]], tuple[nn.Module, tuple[int, ...]]]] = {
    "resnet": _resnet,
    "timm": _timm,
    "custom": _custom,
}


def build_fpn(backbone: BackboneConfig, cfg: FPNConfig) -> FPN:
    bottom_up, channels = BACKBONES[backbone.kind](backbone, cfg.stages)
    return FPN(
        bottom_up,
        channels,
        int(cfg.stages[0].removeprefix("res")),
        cfg.channels,
        fuse=cfg.fuse,
        top=cfg.top,
        top_input=cfg.top_input,
        norm=cfg.norm,
        hold_statistics=backbone.norm in HELD,
    )


def build_backbone(backbone: BackboneConfig, fpn: FPNConfig | None, levels: Collection[str]) -> FPN | ResNetStages:
    """The pyramid, or without one (`fpn` None) the stages named by `levels` themselves."""
    if fpn is not None:
        return build_fpn(backbone, fpn)
    if not isinstance(backbone, ResNetConfig):
        raise ConfigError("model.fpn", None, f"needs backbone.kind=resnet, not {backbone.kind}")
    resnet, _ = _resnet(backbone, tuple(stage for stage in STAGES if stage in levels))
    return ResNetStages(resnet, hold_statistics=backbone.norm in HELD)
