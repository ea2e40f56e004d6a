"""From settings to the parts that several detectors share."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.assembly.custom import build_custom
from pipeline.detector.losses import BoxLoss, CustomBoxLoss
from pipeline.detector.pixels import Pixels
from pipeline.detector.pooler import Pooler
from pipeline.detector.rpn import Matching
from pipeline.detector.sampling import Sampler
from pipeline.detector.select import Selection
from pipeline.detector.settings.losses import BoxLossConfig
from pipeline.detector.settings.parts import (
    AnchorConfig,
    InputConfig,
    MatchConfig,
    PoolerConfig,
    SampleConfig,
    SelectConfig,
)
from pipeline.errors import ConfigError

NOTHING: Mapping[str, int] = MappingProxyType({})


def build_pooler(cfg: PoolerConfig, levels: tuple[str, ...], known: Mapping[str, int] = NOTHING) -> Pooler:
    steps, canonical = strides(levels, known), (cfg.canonical_size, cfg.canonical_level)
    return Pooler(steps, cfg.size, cfg.sampling_ratio, cfg.aligned, *canonical, method=cfg.method)


def build_anchors(cfg: AnchorConfig, levels: tuple[str, ...], known: Mapping[str, int] = NOTHING) -> AnchorGenerator:
    return AnchorGenerator(cfg.sizes, cfg.ratios, strides(levels, known), cfg.offset, cfg.rounding, cfg.spacing)


def per_cell(anchors: AnchorGenerator) -> int:
    if len(set(anchors.per_cell)) > 1:
        rule = f"give {anchors.per_cell} anchors per cell: a head shared by the levels needs one number"
        raise ConfigError("model.anchors", None, rule)
    return anchors.per_cell[0]


def strides(levels: tuple[str, ...], known: Mapping[str, int] = NOTHING) -> list[int]:
    """Pixels per cell of each level: those `known` of the backbone, else as the name's number says."""
    return [known.get(level, 2 ** int(level[-1])) for level in levels]


def build_matching(cfg: MatchConfig) -> Matching:
    return Matching(cfg.thresholds, cfg.labels, cfg.low_quality)


def build_sampler(cfg: SampleConfig) -> Sampler:
    return Sampler(cfg.count, cfg.positive_fraction, cfg.order)


def build_box_loss(cfg: BoxLossConfig) -> BoxLoss:
    if cfg.kind == "custom":
        return CustomBoxLoss(build_custom("box_loss", cfg.target, cfg.options), cfg.weight)
    return BoxLoss(cfg.kind, cfg.beta, cfg.weight)


def build_selection(cfg: SelectConfig) -> Selection:
    return Selection(cfg.score, cfg.nms, cfg.limit, cfg.min_size)


def build_pixels(cfg: InputConfig) -> Pixels:
    return Pixels(cfg.mean, cfg.std)
