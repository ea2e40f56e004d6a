"""Checks of picture files: what the line cannot read, or reads otherwise than the labels say."""

import numpy as np

from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.pictures import State


class MissingPicture(Check):
    """A picture that the labels name and the folder does not hold."""

    code, fix = "image-missing", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        return _in_state(self, data, State.MISSING)


class UnreadablePicture(Check):
    """A file that is not a picture, or is damaged before its size can be read."""

    code, fix = "image-unreadable", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        return _in_state(self, data, State.UNREADABLE)


class TruncatedPicture(Check):
    """A picture whose pixels end early or are damaged: a lenient reader fills the rest with grey and trains on it."""

    code, fix = "image-truncated", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        return _in_state(self, data, State.TRUNCATED)


class TooLargePicture(Check):
    """A header that promises more than validate.limits.max_pixels: a decompression bomb, or a picture to be cut in tiles."""

    code, fix = "image-too-large", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        return _in_state(self, data, State.TOO_LARGE)


class UnknownSize(Check):
    """A label file without the picture's size: evaluators and other tools need it."""

    code, fix = "image-size-unknown", Fix.SIZE

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.readable_I & ((data.widths_I <= 0) | (data.heights_I <= 0)))
        real = {"w": data.real_widths_I[rows], "h": data.real_heights_I[rows]}
        return data.on_pictures(self, rows, "no size stored, the picture is {w} x {h}", **real)


class SizeDiffers(Check):
    """A stored size that is not the picture's: it was resized, cropped or turned after labelling, so its boxes lie elsewhere."""

    code, fix = "image-size-differs", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        known = data.readable_I & (data.widths_I > 0) & (data.heights_I > 0)
        differs = (data.widths_I != data.real_widths_I) | (data.heights_I != data.real_heights_I)
        rows = np.flatnonzero(known & differs)
        return data.on_pictures(
            self,
            rows,
            "stored as {sw} x {sh}, the picture is {w} x {h}",
            sw=data.widths_I[rows],
            sh=data.heights_I[rows],
            w=data.real_widths_I[rows],
            h=data.real_heights_I[rows],
        )


class UnlabelledPicture(Check):
    """A picture that no label file mentions: if there are objects on it, training learns to overlook them."""

    code, fix = "image-unlabelled", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        return data.on_pictures(self, np.flatnonzero(~data.labelled_I() & data.unlisted_I), "no label file mentions it")


class EmptyPicture(Check):
    """A picture labelled as empty: background, fine when nothing is on it."""

    code = "image-empty"

    def find(self, data: Columns) -> Findings:
        return data.on_pictures(self, np.flatnonzero(~data.labelled_I() & ~data.unlisted_I), "labelled, without any object")


def _in_state(check: Check, data: Columns, state: State) -> Findings:
    rows = np.flatnonzero(data.state_I == state)
    return data.on_pictures(check, rows, "{fault}", fault=[data.faults[row] for row in rows.tolist()])
