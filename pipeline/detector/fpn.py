"""Feature pyramid network over a backbone (Lin et al. 2017). Parameter names equal those of Detectron2 checkpoints."""

from collections.abc import Sequence
from typing import Literal, Self

from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.norms import ConvNorm, Norm, batch_norms


class MaxPoolTop(nn.Module):
    """p6 as every second cell of p5."""

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        return [functional.max_pool2d(x_NCHW, kernel_size=1, stride=2)]


class P6P7Top(nn.Module):
    """p6 by a stride-2 convolution, p7 by another over relu(p6)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.p6 = xavier(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
        self.p7 = xavier(nn.Conv2d(outputs, outputs, 3, stride=2, padding=1))

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        p6 = self.p6(x_NCHW)
        return [p6, self.p7(functional.relu(p6))]


class FPN(nn.Module):
    """A backbone and its pyramid: pixels -> features by level name, p<n> of stride 2**n.

    `bottom_up` gives a list of features of strides 2**first, 2**(first + 1), ...; `inputs` are their channels. With
    `hold_statistics` the backbone's batch norms stay in evaluation mode.
    """

    def __init__(
        self,
        bottom_up: nn.Module,
        inputs: Sequence[int],
        first: int,
        channels: int,
        *,
        fuse: Literal["sum", "avg"],
        top: Literal["none", "maxpool", "p6p7"],
        top_input: Literal["backbone", "fpn"],
        norm: Norm,
        hold_statistics: bool,
    ) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.numbers = tuple(range(first, first + len(inputs)))
        self.channels = channels
        self.level_strides: dict[str, int] = {}
        """Strides that a level's name does not tell: none."""
        self.divisor = 2 ** self.numbers[-1]
        self.fuse_factor = 1.0 if fuse == "sum" else 0.5
        self.hold_statistics = hold_statistics
        for number, wide in zip(self.numbers, inputs, strict=True):
            self.add_module(f"fpn_lateral{number}", xavier(ConvNorm(wide, channels, 1, norm)))
            self.add_module(f"fpn_output{number}", xavier(ConvNorm(channels, channels, 3, norm)))
        self.top_from_backbone = top == "p6p7" and top_input == "backbone"
        self.top_block: nn.Module | None = None
        if top == "maxpool":
            self.top_block = MaxPoolTop()
        elif top == "p6p7":
            self.top_block = P6P7Top(inputs[-1] if self.top_from_backbone else channels, channels)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.hold_statistics:
            for norm in batch_norms(self.bottom_up):
                norm.eval()
        return self

    def forward(self, x_N3HW: Tensor) -> dict[str, Tensor]:
        """Normalised pixels [N, 3, H, W], H and W multiples of `divisor` -> features [N, channels, H / 2**n, W / 2**n]."""
        stages = self.bottom_up(x_N3HW)
        levels: dict[str, Tensor] = {}
        coarser: Tensor | None = None
        for number, stage in zip(reversed(self.numbers), reversed(stages), strict=True):
            merged = self.get_submodule(f"fpn_lateral{number}")(stage)
            if coarser is not None:
                merged = merged + functional.interpolate(coarser, scale_factor=2.0, mode="nearest")
                merged = merged * self.fuse_factor if self.fuse_factor != 1 else merged
            coarser = merged
            levels[f"p{number}"] = self.get_submodule(f"fpn_output{number}")(merged)
        levels = {f"p{number}": levels[f"p{number}"] for number in self.numbers}
        if self.top_block is not None:
            last = self.numbers[-1]
            start = stages[-1] if self.top_from_backbone else levels[f"p{last}"]
            levels |= {f"p{last + 1 + i}": level for i, level in enumerate(self.top_block(start))}
        return levels


def xavier(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with the reference's initial values: uniform of variance 1 / fan-in, bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def he_normal(layer: nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """The layer with the reference's initial values: normal of variance 2 / fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
