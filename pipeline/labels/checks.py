"""The checks there are. Adding one = one class in its family's file, one line here, one severity in conf/validate/."""

from collections.abc import Mapping

from pipeline.labels import appearance, boxes, distribution, duplicates, images, keypoints, masks, near_pictures, structure
from pipeline.labels.check import Check, Severity
from pipeline.labels.limits import Limits

CHECKS: dict[str, type[Check]] = {
    check.code: check
    for check in (
        structure.OrphanAnnotation,
        structure.UnknownCategory,
        structure.EmptySplit,
        structure.ClassNotTrained,
        structure.UnusedClass,
        structure.RepeatedAnnotationId,
        structure.RepeatedImageId,
        structure.MissingArea,
        structure.RepeatedClassName,
        structure.AlikeClassNames,
        structure.ClassIdGap,
        structure.LabelsWithoutPicture,
        boxes.NotFiniteBox,
        boxes.MissingBox,
        boxes.ZeroAreaBox,
        boxes.WhollyOutsideBox,
        boxes.PartlyOutsideBox,
        boxes.SliverBox,
        boxes.ExtremeAspect,
        boxes.WholePictureBox,
        boxes.BoxArea,
        boxes.UnlikeClass,
        masks.FewPoints,
        masks.OddLength,
        masks.NotFiniteMask,
        masks.EmptyMask,
        masks.FullMask,
        masks.SelfCrossing,
        masks.MaskOutside,
        masks.MaskOffBox,
        masks.MaskArea,
        masks.MaskHole,
        masks.ManyFragments,
        masks.BrokenRuns,
        masks.RunsOfOtherSize,
        masks.CrowdPolygon,
        masks.OverlappingMasks,
        masks.MixedMasks,
        keypoints.KeypointCount,
        keypoints.KeypointForm,
        keypoints.KeypointVisibility,
        keypoints.KeypointOutside,
        keypoints.KeypointsAllZero,
        keypoints.KeypointOffBox,
        keypoints.SidesSwapped,
        duplicates.NearDuplicateBox,
        duplicates.NearDuplicateOtherClass,
        duplicates.LeakedPicture,
        duplicates.RepeatedPicture,
        near_pictures.NearLeak,
        near_pictures.NearRepeat,
        images.MissingPicture,
        images.UnreadablePicture,
        images.TruncatedPicture,
        images.TooLargePicture,
        images.UnknownSize,
        images.SizeDiffers,
        images.UnlabelledPicture,
        images.EmptyPicture,
        appearance.TurnedPicture,
        appearance.DeepPicture,
        appearance.PrintPicture,
        appearance.AnimatedPicture,
        appearance.GreyPicture,
        appearance.FlatPicture,
        appearance.BlurredPicture,
        appearance.OverexposedPicture,
        appearance.UnderexposedPicture,
        appearance.SmallPicture,
        distribution.ClassImbalance,
        distribution.RareClass,
        distribution.ClassNotMeasured,
        distribution.SplitDrift,
        distribution.CrowdedPicture,
        distribution.SizeRangeEmpty,
        distribution.ClassFollowsPicture,
    )
}
"""By code, in the order in which reports list them."""


def build_checks(severity: Mapping[str, Severity], limits: Limits) -> list[Check]:
    """The checks that are not ignored, with the severity that the config gives them."""
    return [kind(severity[code], limits) for code, kind in CHECKS.items() if severity[code] != Severity.IGNORE]
