"""From settings to backbones and pyramids."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.detector.assembly.custom import build_custom, require_has
from pipeline.detector.backbones import ResNet, timm_backbone
from pipeline.detector.fpn import FPN
from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, ResNetConfig, TimmConfig
from pipeline.detector.settings.custom import CustomBackboneConfig


def _resnet(cfg: ResNetConfig, stages: tuple[str, ...]) -> tuple[nn.Module, tuple[int, ...]]:
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
    )
    for module in backbone.modules():
        if hasattr(module, "running_var"):
            setattr(module, "eps", cfg.norm_eps)  # noqa: B010  frozen norms and batch norms both have it
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
        hold_statistics=backbone.norm != "batch",
    )
