"""What a label check is: a code, a severity from the config, an explanation, perhaps a fix, and one columnar `find`."""

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import ConfigError
from pipeline.schema import schema

if TYPE_CHECKING:
    from pipeline.labels.columns import Columns, Findings


class Severity(StrEnum):
    """How much a finding matters; the config gives each code its own."""

    ERROR = "error"
    """Spoils training or its measurement: fixed by `validate.fix=safe`, counted by the gate."""
    WARNING = "warning"
    """Probably wrong, a person should look: fixed by `validate.fix=all` only."""
    INFO = "info"
    """Worth knowing; nothing is wrong."""
    IGNORE = "ignore"
    """The check does not run. (Not called off: YAML reads that as false.)"""


class Fix(StrEnum):
    """What mends a finding."""

    DROP = "drop"
    """Remove the annotation."""
    CLIP = "clip"
    """Cut the box at the picture's border; the area of an annotation without a mask follows."""
    MERGE = "merge"
    """Remove the annotation and keep the earlier one that it repeats."""
    SIZE = "size"
    """Write the picture's real size in place of the stored one."""
    QUARANTINE = "quarantine"
    """Leave out the picture with all its annotations."""

    @property
    def harmless(self) -> bool:
        """True where the fix can lose no label; `validate.fix=safe` applies it whatever the severity."""
        return self in (Fix.CLIP, Fix.SIZE)


@schema
class Limits:
    """Where the checks draw their lines."""

    near_duplicate_iou: float
    """Two boxes of one picture with at least this IoU count as drawn twice. On the clean COCO and VOC pictures that this was
    tuned on, real pairs of one class end at 0.78 (two people embracing) and double clicks begin at 0.83."""
    outside_px: float
    """A box may reach this far beyond its picture, in pixels, before it is a finding: tools round to whole pixels."""
    max_pixels: int
    """Pictures with more pixels are not decoded (decompression bombs). Pillow itself refuses above 178,956,970."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.near_duplicate_iou <= 1:
            raise ConfigError(
                "validate.limits.near_duplicate_iou", self.near_duplicate_iou, "must be 0.5 to 1; 0.8 suits most data"
            )
        if self.outside_px < 0:
            raise ConfigError("validate.limits.outside_px", self.outside_px, "must be 0 or more pixels")
        if not 1 <= self.max_pixels <= 178_956_970:
            raise ConfigError(
                "validate.limits.max_pixels", self.max_pixels, "must be 1 to 178956970, the most that Pillow decodes"
            )


class Check(ABC):
    """One kind of fault. Subclasses say in their docstring's first line why it matters; the report shows that line."""

    code: ClassVar[str]
    fix: ClassVar[Fix | None] = None

    def __init__(self, severity: Severity, limits: Limits) -> None:
        self.severity = severity
        self.limits = limits

    @abstractmethod
    def find(self, data: "Columns") -> "Findings":
        """All findings in the whole dataset at once, by numpy over its columns."""

    @classmethod
    def explanation(cls) -> str:
        """Why this is a fault, in one line."""
        return (cls.__doc__ or "").strip().splitlines()[0]
