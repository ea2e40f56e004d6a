"""Settings of `python -m pipeline monitor`. No torch."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema

Statistic = Literal["embedding", "scores", "classes", "sizes", "objects", "brightness", "contrast", "sharpness"]


@schema
class MonitorConfig:
    """What new pictures are compared with, and how often they may raise a false alarm."""

    detector: Literal["local", "champion"]
    """`local`: models/onnx of the checkout. `champion`: the version of the registered model that has this alias."""
    splits: tuple[Literal["val", "test"], ...]
    """Splits of data/validated that stand for the training set: a detector is over-confident on what it was trained on."""
    statistics: tuple[Statistic, ...]
    """What is compared; one that is expected to differ, such as brightness over the seasons, may be left out."""
    false_alarms: float
    """Greatest share of alarms among sets of pictures that differ by chance alone."""
    permutations: int
    """Random relabellings behind each p-value; the smallest p-value is 1 over one more."""
    least: int
    """Fewest new pictures, and fewest reference pictures: with fewer, hardly any difference can be told from chance."""
    most: int
    """Most pictures on either side; of more, so many are drawn at random."""
    score: float
    """Least score of a detection that counts as an object (classes, sizes, objects per picture)."""
    low_score: float
    """Least score of a detection in the histogram of scores."""
    unusual: int
    """Pictures shown as the most unusual ones."""
    emit: bool
    """Past the alarm, emit the event `dataset.drifted`, to which the deployment of retraining listens."""

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise ConfigError("monitor.splits", list(self.splits), "must name val, test or both, each once")
        if not self.statistics or len(set(self.statistics)) != len(self.statistics):
            raise ConfigError("monitor.statistics", list(self.statistics), "must name at least one statistic, each once")
        if not 0 < self.false_alarms < 1:
            raise ConfigError("monitor.false_alarms", self.false_alarms, "must be in (0, 1)")
        if self.permutations < self.permutations_needed:
            rule = f"is too few: {len(self.statistics)} statistics at {self.false_alarms} need {self.permutations_needed}"
            raise ConfigError("monitor.permutations", self.permutations, rule)
        if self.least < 2:
            raise ConfigError("monitor.least", self.least, "must be 2 or more")
        if self.most < self.least:
            raise ConfigError("monitor.most", self.most, f"must be monitor.least={self.least} or more")
        if not 0 <= self.low_score <= self.score <= 1:
            raise ConfigError("monitor.score", self.score, f"must be from monitor.low_score={self.low_score} to 1")
        if self.unusual < 0:
            raise ConfigError("monitor.unusual", self.unusual, "must be 0 or more")

    @property
    def permutations_needed(self) -> int:
        """Fewest relabellings with which one statistic alone can pass the corrected level: fewer would never alarm."""
        return -int(-(len(self.statistics) / self.false_alarms) // 1) - 1
