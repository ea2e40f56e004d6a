"""Dense pose head (Güler et al. 2018, DensePose): from a region's features to maps of parts and (u, v).

Parameter names equal those of DensePose checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.losses import float32

Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d)
GROUPS = 32
RATES = (6, 12, 56)
"""Dilations of the atrous pyramid pooling: the reference's."""


@dataclass(frozen=True, slots=True)
class DenseMaps:
    """Maps [M, C, H, W] of M regions in the frames of their boxes. P parts: channel 0 of `fine`, `u`, `v` is the background."""

    coarse: Tensor
    """Logits of the coarse segmentation, [M, 2 or 15, H, W]."""
    fine: Tensor
    """Logits of background and parts, [M, P + 1, H, W]."""
    u: Tensor
    v: Tensor
    """Surface coordinates of each part, [M, P + 1, H, W]; 0..1 once learnt."""
    sigma: Tensor | None = None
    """Before softplus: variance of (u, v) per part, where confidence is learnt."""
    kappa_u: Tensor | None = None
    kappa_v: Tensor | None = None
    """Vector along which the variance is larger."""

    def finite(self) -> Tensor:
        """bool [M]: every map of the region is finite."""
        given = [value for field in fields(self) if (value := getattr(self, field.name)) is not None]
        return torch.stack([torch.isfinite(value).flatten(1).all(dim=1) for value in given]).all(dim=0)


class HeadConv(nn.Conv2d):
    """A convolution of a head that keeps the size, with an optional group norm, initialised by He's rule."""

    def __init__(self, inputs: int, outputs: int, kernel: int, grouped: bool) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=not grouped)
        self.norm = nn.GroupNorm(GROUPS, outputs) if grouped else None
        he(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = super().forward(x_NCHW)
        return x_NCHW if self.norm is None else self.norm(x_NCHW)


class DenseDecoder(nn.Module):
    """All levels brought to one stride by convolutions and bilinear doubling, summed, and mixed by a 1x1 convolution."""

    def __init__(
        self, levels: Sequence[str], strides: Sequence[int], channels: int, width: int, outputs: int, stride: int, grouped: bool
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        for level, own in zip(levels, strides, strict=True):
            steps: list[nn.Module] = []
            for k in range(max(1, own.bit_length() - stride.bit_length())):
                steps.append(_ConvReLU(width if k else channels, width, grouped))
                if own != stride:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(level, nn.Sequential(*steps))
        self.predictor = he(nn.Conv2d(width, outputs, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[N, outputs, H, W] at the finest level's size."""
        joined = self.get_submodule(self.levels[0])(maps[0])
        for level, feature in zip(self.levels[1:], maps[1:], strict=True):
            joined = joined + self.get_submodule(level)(feature)
        mixed: Tensor = self.predictor(joined)
        return mixed


class _ConvReLU(HeadConv):
    """A 3x3 convolution, norm and ReLU under one name."""

    def __init__(self, inputs: int, outputs: int, grouped: bool) -> None:
        super().__init__(inputs, outputs, 3, grouped)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return functional.relu(super().forward(x_NCHW))


class ConvDenseHead(nn.Module):
    """Stacked convolutions with ReLU: [M, C, S, S] -> [M, channels, S, S]."""

    def __init__(self, inputs: int, convs: int, channels: int, kernel: int, grouped: bool = False) -> None:
        super().__init__()
        self.conv_names = [f"body_conv_fcn{i + 1}" for i in range(convs)]
        for number, name in enumerate(self.conv_names):
            self.add_module(name, HeadConv(channels if number else inputs, channels, kernel, grouped))

    def forward(self, x_MCSS: Tensor) -> Tensor:
        for name in self.conv_names:
            x_MCSS = functional.relu(self.get_submodule(name)(x_MCSS))
        return x_MCSS


class DeepLabDenseHead(ConvDenseHead):
    """Atrous pyramid pooling (Chen et al. 2017), maybe a non-local block (Wang et al. 2018), then stacked convolutions."""

    def __init__(self, inputs: int, convs: int, channels: int, kernel: int, grouped: bool, nonlocal_block: bool) -> None:
        super().__init__(inputs, convs, channels, kernel, grouped)
        self.ASPP = AtrousPyramid(inputs)
        self.NLBlock = NonLocalBlock(inputs) if nonlocal_block else None

    def forward(self, x_MCSS: Tensor) -> Tensor:
        x_MCSS = self.ASPP(x_MCSS)
        return super().forward(x_MCSS if self.NLBlock is None else self.NLBlock(x_MCSS))


class AtrousPyramid(nn.Module):
    """Views of several widths side by side: 1x1, three dilated 3x3, and the region's mean, each with group norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([self._view(nn.Conv2d(channels, channels, 1, bias=False), channels)])
        for rate in RATES:
            dilated = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)
            self.convs.append(self._view(dilated, channels))
        pooled = self._view(nn.Conv2d(channels, channels, 1, bias=False), channels)
        self.convs.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), *pooled))
        self.project = nn.Sequential(nn.Conv2d((len(RATES) + 2) * channels, channels, 1, bias=False), nn.ReLU())

    @staticmethod
    def _view(layer: nn.Conv2d, channels: int) -> nn.Sequential:
        return nn.Sequential(layer, nn.GroupNorm(GROUPS, channels), nn.ReLU())

    def forward(self, x_MCSS: Tensor) -> Tensor:
        views = [view(x_MCSS) for view in self.convs]
        views[-1] = views[-1].expand_as(views[0])  # resizing one cell to the region repeats it
        projected: Tensor = self.project(torch.cat(views, dim=1))
        return projected


class NonLocalBlock(nn.Module):
    """Every cell adds a mean of all (subsampled) cells, weighted by softmax of embedded products; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.GroupNorm(GROUPS, channels))
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        for values in self.W[1].parameters():
            nn.init.zeros_(values)

    def forward(self, x_MCSS: Tensor) -> Tensor:
        query_MQC = self.theta(x_MCSS).flatten(2).transpose(1, 2)
        attention_MQK = (query_MQC @ self.phi(x_MCSS).flatten(2)).softmax(dim=-1)
        mean_MCQ = (attention_MQK @ self.g(x_MCSS).flatten(2).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = self.W(mean_MCQ.unflatten(2, x_MCSS.shape[2:])) + x_MCSS
        return mixed


class DensePredictor(nn.Module):
    """Transposed convolutions of stride 2, then bilinear upscaling: one per map."""

    def __init__(
        self,
        inputs: int,
        parts: int,
        coarse_channels: int,
        kernel: int,
        upscale: int,
        uv_confidence: Literal["iid_iso", "indep_aniso"] | None,
        segm_epsilon: float | None,
    ) -> None:
        super().__init__()
        self.upscale, self.uv_confidence, self.segm_epsilon = upscale, uv_confidence, segm_epsilon

        def doubled(outputs: int) -> nn.Module:
            return he(nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=kernel // 2 - 1))

        self.ann_index_lowres = doubled(coarse_channels)
        self.index_uv_lowres = doubled(parts + 1)
        self.u_lowres, self.v_lowres = doubled(parts + 1), doubled(parts + 1)
        if uv_confidence is not None:
            self.sigma_2_lowres = doubled(parts + 1)
        if uv_confidence == "indep_aniso":
            self.kappa_u_lowres, self.kappa_v_lowres = doubled(parts + 1), doubled(parts + 1)
        if segm_epsilon is not None:
            self.fine_segm_confidence_lowres, self.coarse_segm_confidence_lowres = doubled(1), doubled(1)

    def forward(self, x_MCSS: Tensor) -> DenseMaps:
        def map_of(name: str) -> Tensor:
            low = float32(self.get_submodule(f"{name}_lowres")(x_MCSS))
            return functional.interpolate(low, scale_factor=self.upscale, mode="bilinear", align_corners=False)

        coarse, fine = map_of("ann_index"), map_of("index_uv")
        if self.segm_epsilon is not None:
            fine = fine * (functional.softplus(map_of("fine_segm_confidence")) + self.segm_epsilon)
            coarse = coarse * (functional.softplus(map_of("coarse_segm_confidence")) + self.segm_epsilon)
        anisotropic = self.uv_confidence == "indep_aniso"
        return DenseMaps(
            coarse=coarse,
            fine=fine,
            u=map_of("u"),
            v=map_of("v"),
            sigma=None if self.uv_confidence is None else map_of("sigma_2"),
            kappa_u=map_of("kappa_u") if anisotropic else None,
            kappa_v=map_of("kappa_v") if anisotropic else None,
        )


def he(layer: Layer) -> Layer:
    """The layer with the reference's initial values: normal of variance 2 / fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
