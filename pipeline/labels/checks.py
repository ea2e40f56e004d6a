"""The checks there are. Adding one = one class in its family's file, one line here, one severity in conf/validate/."""

from collections.abc import Mapping

from pipeline.labels import boxes, duplicates, images, structure
from pipeline.labels.check import Check, Limits, Severity

CHECKS: dict[str, type[Check]] = {
    check.code: check
    for check in (
        structure.OrphanAnnotation,
        structure.UnknownCategory,
        structure.EmptySplit,
        structure.ClassNotTrained,
        structure.UnusedClass,
        boxes.NotFiniteBox,
        boxes.ZeroAreaBox,
        boxes.WhollyOutsideBox,
        boxes.PartlyOutsideBox,
        duplicates.NearDuplicateBox,
        duplicates.NearDuplicateOtherClass,
        duplicates.LeakedPicture,
        duplicates.RepeatedPicture,
        images.MissingPicture,
        images.UnreadablePicture,
        images.TruncatedPicture,
        images.TooLargePicture,
        images.UnknownSize,
        images.SizeDiffers,
        images.UnlabelledPicture,
        images.EmptyPicture,
    )
}
"""By code, in the order in which reports list them."""


def build_checks(severity: Mapping[str, Severity], limits: Limits) -> list[Check]:
    """The checks that are not ignored, with the severity that the config gives them."""
    return [kind(severity[code], limits) for code, kind in CHECKS.items() if severity[code] != Severity.IGNORE]
