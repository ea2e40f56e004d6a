"""From settings to the semantic branch."""

from pipeline.detector.semantic_head import SemanticHead
from pipeline.detector.settings.semantic import SemanticConfig


def build_semantic_head(cfg: SemanticConfig, channels: int, classes: int) -> SemanticHead:
    return SemanticHead(
        cfg.levels,
        channels,
        classes,
        conv_channels=cfg.channels,
        common_stride=cfg.common_stride,
        norm=cfg.norm,
        ignore_value=cfg.ignore_value,
        loss_weight=cfg.loss_weight,
    )
