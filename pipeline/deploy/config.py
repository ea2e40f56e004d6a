"""Settings of quantization, export and the parity gate. No torch, no ONNX."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema


@schema
class QuantizeConfig:
    """How activations' ranges are found and which convolutions become INT8."""

    pictures: int
    """Training pictures that the calibration looks at, drawn by the seed."""
    calibrator: Literal["minmax", "entropy", "percentile"]
    """How a tensor's range is taken from what was seen."""
    per_channel: bool
    """One scale per output channel of a weight instead of one per tensor."""
    reduce_range: bool
    """7-bit weights: needed where the CPU has no VNNI, because 8-bit products saturate there."""
    float_layers: tuple[str, ...]
    """Convolutions that stay in float, by the beginning of their weight's name; the first convolution always does."""
    float_depthwise: bool
    """Keep depthwise convolutions in float: one range for all channels of their input costs them most (3 points of AP on BCCD,
    EfficientNet-Lite0), and they are a small share of the work."""
    opset: int
    """Version of the ONNX operator set."""

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ConfigError("quantize.pictures", self.pictures, "must be at least 1; 64 suits most data")
        if self.opset < 20:
            raise ConfigError("quantize.opset", self.opset, "must be at least 20")


@schema
class Gate:
    """What the exported files must hold on the validation split, or the stage fails."""

    fp32_ap: float
    """Largest loss of AP of the float file against torch, in 0..1: of boxes, and of masks where the detector finds them."""
    int8_ap: float
    """Largest loss of AP of the INT8 file against torch, in 0..1: of boxes, and of masks where the detector finds them."""

    def __post_init__(self) -> None:
        for name in ("fp32_ap", "int8_ap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"export.gate.{name}", getattr(self, name), "is a loss of AP: 0 to 1")


@schema
class ExportConfig:
    """The gate, and what the page shows."""

    gate: Gate
    batch: int
    """Pictures per run of the exported files while they are compared."""
    pictures: int
    """Pictures of the report that show the three files' boxes side by side."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError("export.batch", self.batch, "must be at least 1")
        if self.pictures < 0:
            raise ConfigError("export.pictures", self.pictures, "must be 0 or more")
