"""What a label check is: a code, a severity from the config, an explanation, perhaps a fix, and one columnar `find`."""

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pipeline.labels.limits import Limits

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
    UPRIGHT = "upright"
    """Write the picture anew as viewers show it, where the stored size says that it was labelled so; else leave it."""
    QUARANTINE = "quarantine"
    """Leave out the picture with all its annotations."""
    PRUNE = "prune"
    """Remove the parts of the mask that cannot be used; the rest, and the box, stays."""
    REPAIR = "repair"
    """Write run lengths anew where what is left of them agrees with the box, else remove them; the box stays."""
    CROP = "crop"
    """Cut the mask's polygons at the picture's border; inside nothing changes."""
    UNCROSS = "uncross"
    """Put the polygon's points in an order in which its edges do not cross."""
    ENCODE = "encode"
    """Write the polygons as run lengths of the same pixels."""
    FILL = "fill"
    """Write the box or the area that the label lacks: around its mask, or of its mask or box."""
    BOX = "box"
    """Draw the box around the mask."""
    AREA = "area"
    """Write the area of the mask, or of the box where there is none."""
    UNITE = "unite"
    """Give the labels of a class whose name repeats to the first class of that name, and remove the class."""
    UNLABEL = "unlabel"
    """Mark the keypoints at fault as not labelled; the others, and the box, stay."""

    @property
    def harmless(self) -> bool:
        """True where the fix can lose no label; `validate.fix=safe` applies it whatever the severity."""
        return self in (Fix.CLIP, Fix.SIZE, Fix.CROP, Fix.FILL, Fix.UPRIGHT)


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
