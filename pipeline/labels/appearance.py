"""Checks of what pictures look like and how they are stored. Only a person can judge most of them: they warn or inform."""

from abc import abstractmethod

import numpy as np

from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.looks import GREY, Look

TURNS = {
    2: "mirrored",
    3: "turned by 180°",
    4: "upside down",
    5: "mirrored and turned",
    6: "turned by 90°",
    7: "mirrored and turned",
    8: "turned by 270°",
}

SOFT = 0.25
"""A picture with more than this share of the dataset's median sharpness is not blurred, however soft all of them are."""


class LookCheck(Check):
    """A check of each picture's look by itself."""

    def find(self, data: Columns) -> Findings:
        said = [(row, said) for row, look in enumerate(data.looks) if look is not None and (said := self.says(look))]
        reasons = [reason for _, reason in said]
        return data.on_pictures(self, np.array([row for row, _ in said], np.int64), "{said}", said=reasons)

    @abstractmethod
    def says(self, look: Look) -> str | None:
        """What is odd about a picture; None where nothing is."""


class TurnedPicture(LookCheck):
    """A picture that its EXIF data turns: viewers show it turned, training reads it as stored. Which do its labels fit?"""

    code, fix = "image-exif-turned", Fix.UPRIGHT

    def says(self, look: Look) -> str | None:
        return f"EXIF orientation {look.orientation}: shown {TURNS[look.orientation]}" if look.orientation > 1 else None


class DeepPicture(LookCheck):
    """A picture with more than 8 bits a channel: training keeps the upper byte, and what lies below is lost."""

    code = "image-deep"

    def says(self, look: Look) -> str | None:
        return f"more than 8 bits a channel, read as mode {look.mode}" if look.deep else None


class PrintPicture(LookCheck):
    """A picture in printing colours (CMYK): turned into RGB without its colour profile, so its colours are off."""

    code = "image-cmyk"

    def says(self, look: Look) -> str | None:
        return "pixels of mode CMYK" if look.mode == "CMYK" else None


class AnimatedPicture(LookCheck):
    """An animation: training sees its first frame only."""

    code = "image-animated"

    def says(self, look: Look) -> str | None:
        return f"{look.frames} frames" if look.frames > 1 else None


class GreyPicture(Check):
    """A grey picture among coloured ones: fine where the camera makes them, else a hint at another source."""

    code = "image-grey"

    def find(self, data: Columns) -> Findings:
        known = [(row, look) for row, look in enumerate(data.looks) if look is not None]
        real = self.limits.flat_contrast  # below it, there is nothing that could have a colour
        grey = [(row, look) for row, look in known if look.mode in GREY or (not look.coloured and look.contrast >= real)]
        grey = grey if 2 * len(grey) < len(known) else []
        how = ["stored in grey" if look.mode in GREY else f"stored as {look.mode}, without colour" for _, look in grey]
        return data.on_pictures(self, np.array([row for row, _ in grey], np.int64), "{how}", how=how)


class FlatPicture(LookCheck):
    """A picture of hardly more than one grey level: a lens cap, a failed exposure, a placeholder of a website."""

    code = "image-near-empty"

    def says(self, look: Look) -> str | None:
        flat = look.contrast < self.limits.flat_contrast
        return f"its grey levels deviate by {look.contrast:.1f} from their mean {look.brightness:.0f}" if flat else None


class BlurredPicture(Check):
    """A picture without a sharp spot, among sharper ones: out of focus or shaken, so that edges are a matter of taste."""

    code = "image-blurred"

    def find(self, data: Columns) -> Findings:
        seen = [
            (row, look.sharpness) for row, look in enumerate(data.looks) if look and look.contrast >= self.limits.flat_contrast
        ]
        usual = float(np.median([sharpness for _, sharpness in seen])) if seen else 0.0
        line = min(self.limits.sharpness, usual * SOFT)
        found = [(row, sharpness) for row, sharpness in seen if sharpness < line]
        rows, values = np.array([row for row, _ in found], np.int64), [sharpness for _, sharpness in found]
        return data.on_pictures(self, rows, f"sharpness {{own:.1f}} where it is sharpest, the median is {usual:.0f}", own=values)


class OverexposedPicture(LookCheck):
    """A picture that is mostly white: what is there has no texture left."""

    code = "image-overexposed"

    def says(self, look: Look) -> str | None:
        return f"{look.bright:.0%} of the pixels are white" if look.bright >= self.limits.exposed_share else None


class UnderexposedPicture(LookCheck):
    """A picture that is mostly black: what is there cannot be seen."""

    code = "image-underexposed"

    def says(self, look: Look) -> str | None:
        return f"{look.dark:.0%} of the pixels are black" if look.dark >= self.limits.exposed_share else None


class SmallPicture(Check):
    """A picture with too few pixels for the chosen model: enlarged to its input, it has no detail to learn from."""

    code = "image-small"

    def find(self, data: Columns) -> Findings:
        width_I, height_I, scale_I = data.real_widths_I, data.real_heights_I, data.scale_I()
        tiny_I = np.minimum(width_I, height_I) < self.limits.side_px
        rows = np.flatnonzero(data.readable_I & (tiny_I | (scale_I > self.limits.enlarged)))
        enlarged = [
            "" if scale <= self.limits.enlarged else f", enlarged {scale:.1f} times" for scale in np.nan_to_num(scale_I[rows])
        ]
        return data.on_pictures(self, rows, "{w} x {h} pixels{more}", w=width_I[rows], h=height_I[rows], more=enlarged)
