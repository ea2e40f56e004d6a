"""Where the checks draw their lines. The values are in conf/validate/; each field says what real data they come from."""

from dataclasses import fields

from pipeline.errors import ConfigError
from pipeline.schema import schema

BOUNDS: dict[str, tuple[float, float, str]] = {
    "near_duplicate_iou": (0.5, 1, "0.5 to 1; 0.8 suits most data"),
    "outside_px": (0, 1e6, "0 or more pixels"),
    "max_pixels": (1, 178_956_970, "1 to 178956970, the most that Pillow decodes"),
    "loop_share": (0.02, 0.5, "0.02 to 0.5 of the mask's area"),
    "mask_box_px": (0, 1e6, "0 or more pixels"),
    "area_share": (0, 1, "a share: 0 to 1"),
    "whole_share": (0.5, 1, "0.5 to 1 of the picture"),
    "fragments": (1, 1e6, "1 or more"),
    "overlap_share": (0, 1, "a share: 0 to 1"),
    "sliver_px": (0, 1e6, "0 or more pixels"),
    "aspect": (1, 1e6, "1 or more"),
    "unlike_mads": (1, 1e6, "1 or more"),
    "keypoint_beyond_box": (0, 10, "0 to 10 of the box's sides"),
    "side_swap_share": (0, 0.5, "0 to 0.5"),
    "hash_bits": (0, 16, "0 to 16 of the 256 bits"),
    "flat_contrast": (0, 128, "0 to 128 grey levels"),
    "sharpness": (0, 1e6, "0 or more"),
    "exposed_share": (0.05, 1, "0.05 to 1 of the pixels"),
    "side_px": (1, 1e6, "1 or more pixels"),
    "enlarged": (1, 1e6, "1 or more times"),
    "cell_px": (0, 1e6, "0 or more pixels"),
    "lost_share": (0, 1, "a share: 0 to 1"),
    "rare": (1, 1e9, "1 or more labels"),
    "imbalance": (1, 1e9, "1 or more"),
    "drift": (0, 1, "a share: 0 to 1"),
    "crowded": (1, 1e9, "1 or more objects"),
}


@schema
class Limits:
    """Where the checks draw their lines."""

    near_duplicate_iou: float
    """Two boxes of one picture with at least this IoU count as drawn twice. On the clean COCO and VOC pictures that this was
    tuned on, real pairs of one class end at 0.78 (two people embracing) and double clicks begin at 0.83."""
    outside_px: float
    """A box or mask may reach this far beyond its picture, in pixels, before it is a finding: tools round to whole pixels."""
    max_pixels: int
    """Pictures with more pixels are not decoded (decompression bombs). Pillow itself refuses above 178,956,970."""
    loop_share: float
    """A polygon that crosses itself is a finding when the loop so cut off has more than this share of its area: slips of the hand
    are smaller."""
    mask_box_px: float
    """Each side of a box may be this far from its mask's, in pixels, or a tenth of the box's side, whichever is more."""
    area_share: float
    """The stated area may differ from the mask's, or the box's, by this share."""
    whole_share: float
    """A box or mask over at least this share of its picture covers the whole of it."""
    fragments: int
    """A mask in more pieces, or with more holes, than this is a finding."""
    overlap_share: float
    """Two masks of a panoptic dataset may share this much of the smaller one."""
    sliver_px: float
    """A box with a shorter side below this many pixels is a sliver."""
    aspect: float
    """A box more than this many times as long as wide is a finding."""
    unlike_mads: float
    """A box is unlike its class when its size or shape is further from the class's median than this many median absolute
    deviations (of the logarithm, scaled to a normal distribution's)."""
    keypoint_beyond_box: float
    """A visible keypoint may lie this far beyond its box, as a share of the box's longer side."""
    side_swap_share: float
    """A left-right pair against all others of its label is a finding when that happens to it in at most this share of labels."""
    hash_bits: int
    """Two pictures are near-duplicates when at most this many of the 256 bits of their perceptual hashes differ. On the COCO and
    VOC pictures that this was tuned on, copies that were scaled to a quarter or compressed to quality 40 differ in at most 6,
    made a fifth brighter in 2 to 26; pictures of different things in 92 or more."""
    flat_contrast: float
    """A picture is near-empty when its grey levels' standard deviation is below this (0..128)."""
    sharpness: float
    """A picture is blurred when its sharpest ninth has a variance of the Laplacian below this, in grey levels squared at 512
    pixels, and below a quarter of the dataset's median: a microscope's pictures are all soft."""
    exposed_share: float
    """A picture is over- or underexposed when at least this share of its pixels is at the end of the scale."""
    side_px: int
    """A picture with a shorter side below this many pixels is small: a feature pyramid's top has one cell for it."""
    enlarged: float
    """A picture that the chosen model's input (`model.input`) enlarges more times than this is small, whatever its size."""
    cell_px: float
    """An object with a shorter side below this many pixels, at the size that the chosen model resizes its picture to, is smaller
    than a cell of the finest level: 4 pixels at a pyramid's p2. Set 8 for a RetinaNet, 16 for a C4 model."""
    lost_share: float
    """A class with more than this share of objects smaller than a cell is a finding."""
    rare: int
    """A class with fewer training labels than this is rare."""
    imbalance: float
    """The most frequent class may have this many times the training labels of the rarest."""
    drift: float
    """Two splits may differ by this much: total variation of classes, Kolmogorov-Smirnov distance of sizes and brightness."""
    crowded: int
    """A picture with more objects than this is crowded: COCO's evaluation looks at 100 detections a picture."""

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high, allowed = BOUNDS[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:
                raise ConfigError(f"validate.limits.{field.name}", value, f"must be {allowed}")
