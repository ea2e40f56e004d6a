"""What a model's settings say of its grids: levels with anchors, pixels between their cells, and what pictures are padded to."""

from typing import Any


def levels_of(cfg: Any) -> tuple[str, ...]:
    """Levels that have upright anchors: of the pyramid or of the backbone; none where the model has no such anchors."""
    if not hasattr(cfg, "anchors") or hasattr(cfg.anchors, "angles"):
        return ()
    levels: tuple[str, ...] = cfg.rpn.levels if hasattr(cfg, "rpn") else cfg.levels
    return levels


def stride_of(cfg: Any, level: str) -> int:
    """Pixels between the cells of p2..p7 (4 to 128) or res2..res5 (4 to 32; a dilated res5 keeps res4's 16)."""
    dilated = level == "res5" and getattr(cfg.backbone, "res5_dilation", 1) > 1
    return 16 if dilated else 1 << int(level[-1])


def finest_stride(cfg: Any) -> int:
    """Pixels between the finest cells that objects are found at, or of the maps; 1 of a model whose settings do not tell."""
    if hasattr(cfg, "rpn") or hasattr(cfg, "levels"):
        return stride_of(cfg, (cfg.rpn.levels if hasattr(cfg, "rpn") else cfg.levels)[0])
    if hasattr(cfg, "roi"):
        return stride_of(cfg, cfg.roi.levels[0])
    stride: int = cfg.semantic.common_stride if hasattr(cfg, "semantic") else 1
    return stride


def divisor_of(cfg: Any) -> int:
    """Padded pictures have sides that are multiples of it."""
    return 1 if cfg.fpn is None else 1 << int(cfg.fpn.stages[-1][-1])
