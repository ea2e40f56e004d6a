"""From settings to TensorMask."""

from dataclasses import asdict

from pipeline.detector.assembly.backbones import build_fpn
from pipeline.detector.assembly.parts import build_box_loss, build_pixels, build_selection, strides
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.config import TensorMaskConfig
from pipeline.detector.detector import Detector
from pipeline.detector.tensormask import TensorMask, TensorMaskHead
from pipeline.detector.windows import Windows


def tensormask(cfg: TensorMaskConfig, classes: int) -> Detector:
    head = TensorMaskHead(cfg.fpn.channels, classes, cfg.window_cells, **asdict(cfg.head))
    return TensorMask(
        build_pixels(cfg.input),
        build_fpn(cfg.backbone, cfg.fpn),
        head,
        Windows(cfg.window_cells, strides(cfg.levels)),
        levels=cfg.levels,
        coder=BoxCoder(cfg.box_weights),
        box_loss=build_box_loss(cfg.box_loss),
        alpha=cfg.loss.focal_alpha,
        gamma=cfg.loss.focal_gamma,
        mask_weight=cfg.loss.mask,
        mask_inside=cfg.loss.mask_inside,
        candidates=cfg.candidates,
        selection=build_selection(cfg.select),
        mask_cells=cfg.mask_cells,
    )
