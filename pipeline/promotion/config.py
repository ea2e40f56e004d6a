"""Settings of retraining: where a challenger starts, and what it must show to become the champion."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema


@schema
class RetrainConfig:
    """Rules of promotion; all of them must hold. AP is that of the detector's first task, boxes or masks, 0 to 1."""

    start: Literal["champion", "scratch"]
    """What training begins with: the champion's weights, or those that `model` names."""
    force: bool
    """Train although the data is what the champion was trained on, or the same challenger was refused before, and let a version
    in that was rolled back. The rules hold all the same."""
    alias: str
    """MLflow alias of the detector in service."""
    resamples: int
    """Of the paired bootstrap over validation pictures."""
    confidence: float
    """Of the bootstrap's interval of the AP difference, two-sided: 0.95 lets an equal challenger in one time in forty."""
    margin: float
    """The interval's lower end must lie above this."""
    class_drop: float
    """Most AP that any one class may lose; a class of the champion that the data no longer names has lost all of it."""
    slice_drop: float
    """Most AP that any one slice may lose: small, medium and large objects, dark, middling and bright pictures, sources."""
    least_truths: int
    """Classes and slices with fewer labels are shown, not judged: their AP is chance. With fewer in all, nothing is promoted."""
    floor: float
    """AP that the first champion needs, when there is none to compare with."""
    latency_ms: float | None
    """Most milliseconds per picture of the ONNX file on the machine that compares; null for no limit."""

    def __post_init__(self) -> None:
        if not self.alias.strip():
            raise ConfigError("retrain.alias", self.alias, "must not be empty")
        if self.resamples < 100:
            raise ConfigError("retrain.resamples", self.resamples, "must be 100 or more; 1000 gives steady intervals")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError("retrain.confidence", self.confidence, "must be at least 0.5 and below 1")
        for name in ("class_drop", "slice_drop", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"retrain.{name}", getattr(self, name), "is AP: 0 to 1")
        if not -1 <= self.margin <= 1:
            raise ConfigError("retrain.margin", self.margin, "is a difference of AP: -1 to 1")
        if self.least_truths < 1:
            raise ConfigError("retrain.least_truths", self.least_truths, "must be 1 or more")
        if self.latency_ms is not None and self.latency_ms <= 0:
            raise ConfigError("retrain.latency_ms", self.latency_ms, "must be above 0, or null for no limit")
