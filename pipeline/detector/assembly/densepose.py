"""From settings to the dense pose branch."""

from collections.abc import Callable
from typing import Any

from pipeline.detector.assembly.parts import build_pooler, strides
from pipeline.detector.branch import Branch
from pipeline.detector.densepose_branch import DensePoseBranch, DenseRules
from pipeline.detector.densepose_head import ConvDenseHead, DeepLabDenseHead, DenseDecoder, DensePredictor
from pipeline.detector.settings.densepose import ConvDenseHeadConfig, DeepLabDenseHeadConfig, DenseDecoderConfig, DensePoseConfig


def build_densepose(cfg: DensePoseConfig, levels: tuple[str, ...], channels: int) -> Branch:
    decoder = None if cfg.decoder is None else _decoder(cfg.decoder, levels, channels)
    uv = cfg.uv_confidence
    return DensePoseBranch(
        decoder,
        build_pooler(cfg.pooler, levels if decoder is None else levels[:1]),  # the decoder's map has the finest level's stride
        DENSE_HEADS[cfg.head.kind](cfg.head, channels),
        DensePredictor(
            cfg.head.channels,
            cfg.parts,
            cfg.coarse_channels,
            cfg.deconv_kernel,
            cfg.upscale,
            None if uv is None else uv.kind,
            cfg.segm_confidence,
        ),
        DenseRules(
            least_iou=cfg.least_iou,
            coarse_from_masks=cfg.coarse_from_masks,
            uv_epsilon=0.0 if uv is None else uv.epsilon,
            coarse_weight=cfg.coarse_weight,
            part_weight=cfg.part_weight,
            point_weight=cfg.point_weight,
        ),
    )


def _decoder(cfg: DenseDecoderConfig, levels: tuple[str, ...], channels: int) -> DenseDecoder:
    return DenseDecoder(levels, strides(levels), channels, cfg.channels, cfg.outputs, cfg.stride, cfg.norm == "group")


def _conv(cfg: ConvDenseHeadConfig, channels: int) -> ConvDenseHead:
    return ConvDenseHead(channels, cfg.convs, cfg.channels, cfg.kernel)


def _deeplab(cfg: DeepLabDenseHeadConfig, channels: int) -> ConvDenseHead:
    return DeepLabDenseHead(channels, cfg.convs, cfg.channels, cfg.kernel, cfg.norm == "group", cfg.nonlocal_block)


DENSE_HEADS: dict[str, Callable[[Any, int], ConvDenseHead]] = {"conv": _conv, "deeplab": _deeplab}
