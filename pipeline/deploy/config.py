"""Settings of quantization, export and the parity gate. No torch, no ONNX."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema


@schema
class QuantizeConfig:
    """How activations' ranges are found, and how much INT8 may cost before the most sensitive convolutions go back to float."""

    pictures: int
    """Training pictures that the calibration looks at, drawn by the seed."""
    calibrator: Literal["minmax", "entropy", "percentile"]
    """How a tensor's range is taken from what was seen."""
    per_channel: bool
    """One scale per output channel of a weight instead of one per tensor."""
    reduce_range: Literal["auto"] | bool
    """7-bit weights: needed where an x86 CPU has no VNNI, because sums of 8-bit products saturate there; less exact elsewhere.
    "auto" asks the host that quantize runs on, so equal settings on two kinds of host give two files; the recipe says which."""
    float_layers: tuple[str, ...]
    """Convolutions that stay in float whatever is measured, by the beginning of their weight's name."""
    share_least: float
    """Least share of the convolutions in INT8, counted by weight in the written file; below it the stage fails."""
    sensitivity_pictures: int
    """Calibration pictures on which each convolution is measured alone; every one costs a run of the detector per convolution."""
    held_pictures: int
    """Training pictures, none of them calibrated on, whose AP decides how many convolutions go back to float."""
    held_loss: float
    """Largest loss of AP on those, of boxes or masks, in 0..1; stricter than export.gate.int8_ap, which others prove."""
    opset: int
    """Version of the ONNX operator set."""

    def __post_init__(self) -> None:
        for name, good in (("pictures", 64), ("sensitivity_pictures", 2), ("held_pictures", 48)):
            if getattr(self, name) < 1:
                raise ConfigError(f"quantize.{name}", getattr(self, name), f"must be at least 1; {good} suits most data")
        for name in ("share_least", "held_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"quantize.{name}", getattr(self, name), "must be in 0..1")
        if self.opset < 20:
            raise ConfigError("quantize.opset", self.opset, "must be at least 20")


@schema
class Gate:
    """What the exported files must hold on the validation split, or the stage fails."""

    fp32_ap: float
    """Largest loss of AP of the float file against torch, in 0..1: of boxes, and of masks where the detector finds them."""
    int8_ap: float
    """Largest loss of AP of the INT8 file against torch, in 0..1, on this host and as exact integers: of boxes, and of masks
    where the detector finds them."""

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
