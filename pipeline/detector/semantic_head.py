"""Semantic branch of Panoptic FPN (Kirillov et al. 2019): pyramid levels brought to one stride, added, one logit per class.

Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.losses import Losses, finite_rows, float32
from pipeline.detector.norms import ConvNorm, Norm
from pipeline.detector.part import Part
from pipeline.structures import SemanticMaps

IGNORED = 255
"""Marks pixels of a target map that teach nothing, whatever the model's own `ignore_value`."""


class SemanticHead(nn.Module):
    """Level p<n> of stride s takes log2(s / common) convolutions (at least one), each followed by an upsampling by 2 unless s is
    the common stride already."""

    def __init__(
        self,
        levels: Sequence[str],
        channels: int,
        classes: int,
        *,
        conv_channels: int,
        common_stride: int,
        norm: Norm,
        ignore_value: int,
        loss_weight: float,
    ) -> None:
        super().__init__()
        self.levels, self.classes, self.common_stride = tuple(levels), classes, common_stride
        self.ignore_value, self.loss_weight = ignore_value, loss_weight
        for level in self.levels:
            self.add_module(level, _scale_head(2 ** int(level[1:]), channels, conv_channels, common_stride, norm))
        self.predictor = _he(nn.Conv2d(conv_channels, classes, 1))

    def detect(self, features: Mapping[str, Tensor]) -> SemanticMaps:
        """Logits [N, classes, h, w] at the common stride, padding included."""
        logits_NChw = self._logits(features)
        return SemanticMaps(logits_NChw, finite_rows(logits_NChw))

    def losses(self, features: Mapping[str, Tensor], target_NHW: Tensor, part: Part) -> Losses:
        """Cross-entropy at full size, averaged over the step's pixels that are neither `ignore_value` nor 255."""
        logits_NChw = self._logits(features)
        logits_NCHW = functional.interpolate(logits_NChw, scale_factor=self.common_stride, mode="bilinear", align_corners=False)
        counted_NHW = (target_NHW != self.ignore_value) & (target_NHW != IGNORED)
        wanted_NHW = torch.where(counted_NHW, target_NHW, torch.full_like(target_NHW, -100))
        total = functional.cross_entropy(logits_NCHW, wanted_NHW, ignore_index=-100, reduction="sum")
        loss = total / part.divisor(counted_NHW.sum()) * self.loss_weight
        return Losses({"loss_sem_seg": loss}, finite_rows(logits_NChw))

    def _logits(self, features: Mapping[str, Tensor]) -> Tensor:
        summed: Tensor | None = None
        for level in self.levels:
            scaled = self.get_submodule(level)(features[level])
            summed = scaled if summed is None else summed + scaled
        return float32(self.predictor(summed))


def _scale_head(stride: int, channels: int, conv_channels: int, common_stride: int, norm: Norm) -> nn.Sequential:
    steps = (stride // common_stride).bit_length() - 1
    layers: list[nn.Module] = []
    for number in range(max(1, steps)):
        layers.append(ConvNorm(channels if number == 0 else conv_channels, conv_channels, 3, norm, relu=True))
        if steps:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _he(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with the reference's initial values: normal of variance 2 / fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
