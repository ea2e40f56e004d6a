"""Settings of the label checks. No torch."""

from typing import Literal

from pipeline.errors import ConfigError, did_you_mean
from pipeline.labels.check import Severity
from pipeline.labels.checks import CHECKS
from pipeline.labels.limits import Limits
from pipeline.labels.suspicion import Kind
from pipeline.schema import schema


@schema
class Gate:
    """Faults beyond these shares stop the line: then it is the source that needs mending. Shares are 0..1 and are counted before
    anything is fixed; 1 never stops."""

    annotations: float
    """Largest share of annotations with a finding of severity error."""
    pictures: float
    """Largest share of pictures with a finding of severity error of their own."""
    of_a_class: float
    """Largest share of any one class's annotations with a finding of severity error, where it has ten or more: what all labels
    together hide."""
    warned_annotations: float
    """Largest share of annotations with a finding of severity warning."""
    warned_pictures: float
    """Largest share of pictures with a finding of severity warning of their own."""

    def __post_init__(self) -> None:
        for name in ("annotations", "pictures", "of_a_class", "warned_annotations", "warned_pictures"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"validate.gate.{name}", getattr(self, name), "is a share: 0 to 1")


@schema
class Page:
    """How much reports/validate/index.html shows; findings.json always holds everything."""

    pictures: int
    """Most pictures per code."""
    rows: int
    """Most rows of the table of findings."""

    def __post_init__(self) -> None:
        for name in ("pictures", "rows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"validate.page.{name}", getattr(self, name), "must be 0 or more")


@schema
class ValidateConfig:
    """What is checked, what is mended, and what stops the line."""

    fix: Literal["none", "safe", "all"]
    """none: only report. safe: mend errors (drop, clip, merge; leave out pictures that cannot be used) and whatever loses no
    label. all: mend warnings too, where there is a way to."""
    gate: Gate
    limits: Limits
    page: Page
    severity: dict[str, Severity]
    """Of every code: error, warning, info, or ignore (the check does not run)."""

    def __post_init__(self) -> None:
        for code in self.severity:
            if code not in CHECKS:
                raise ConfigError(f"validate.severity.{code}", None, f"is not known. {did_you_mean(code, CHECKS)}")
        for code in CHECKS:
            if code not in self.severity:
                raise ConfigError(f"validate.severity.{code}", None, "is missing: give it a severity in conf/validate/")


@schema
class SuspectsConfig:
    """What `python -m pipeline suspects` compares, and from when on a detection contradicts a label."""

    split: str
    """The split of data/validated whose labels the trained detector judges: one that it was not trained on. Without folds."""
    folds: int
    """0: the trained detector judges `split`. 2 or more: all pictures of all splits are parted into so many, and a detector that
    is trained on the other parts judges each."""
    agree_iou: float
    """A detection of a label's class from this IoU on confirms it; a label that only worse ones overlap is badly located."""
    class_iou: float
    """A detection of another class contradicts the class of a label from this IoU on."""
    apart_iou: float
    """Boxes that overlap by at most this IoU are of different objects: one may be overlooked beside the other's label."""
    overlooked_score: float
    """Least score of a detection for an overlooked object."""
    location_score: float
    """A detection above this score tells that a box is badly located."""
    class_score: float
    """A detection above this score tells that a class is wrong."""
    pictures: int
    """Most pictures that reports/suspects/index.html shows per code, the surest; findings.json always holds everything."""
    rows: int
    """Most rows of its table."""
    severity: dict[Kind, Severity]
    """Of every kind of suspicion: error, warning, info, or ignore (it is not looked for)."""

    def __post_init__(self) -> None:
        for kind in Kind:
            if kind not in self.severity:
                raise ConfigError(f"suspects.severity.{kind}", None, "is missing: give it a severity in conf/suspects/")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError("suspects.folds", self.folds, "must be 0 (the trained detector) or 2 and more; 5 is usual")
        if not 0 <= self.apart_iou < min(self.agree_iou, self.class_iou):
            raise ConfigError("suspects.apart_iou", self.apart_iou, "must be at least 0 and below agree_iou and class_iou")
        for name in ("agree_iou", "class_iou", "overlooked_score", "location_score", "class_score"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"suspects.{name}", getattr(self, name), "must lie between 0 and 1")
        for name in ("pictures", "rows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"suspects.{name}", getattr(self, name), "must be 0 or more")
