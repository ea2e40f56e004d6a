"""What a picture is like: how it is stored, its light, its sharpness, and a hash that small changes leave alone."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.perceptual import grey_levels, perceptual_hash

LONGEST = 512
"""Pixels of the longer side of the picture that light and sharpness are measured on: sharpness depends on scale."""
ORIENTATION = 0x0112
"""EXIF's number for how a picture is to be turned."""
GREY = ("L", "LA", "1", "I", "I;16", "F")
"""Pillow's pixel formats without colour."""
COLOURLESS = 3
"""Levels that the channels of a pixel without colour may differ by: JPEG's conversion rounds."""
DARK, BRIGHT = 5, 250
"""Grey levels up to which, and from which on, a pixel is at the end of the scale."""
LEVELS = np.arange(256, dtype=np.float64)
THIRDS = 3
"""Sharpness is that of the sharpest of THIRDS x THIRDS fields: a blurred background is no fault."""


class Look(NamedTuple):
    """Measures of one picture."""

    mode: str
    """Pillow's name of the pixel format: RGB, L, CMYK, I;16 ..."""
    frames: int
    """More than one in an animation."""
    orientation: int
    """EXIF's, 1 (as stored) to 8."""
    brightness: float
    """Mean grey level, 0..255."""
    contrast: float
    """Standard deviation of the grey levels."""
    sharpness: float
    """Variance of the Laplacian in the sharpest ninth (Pech-Pacheco et al. 2000), in grey levels squared."""
    dark: float
    """Share of the pixels at the dark end of the scale."""
    bright: float
    """Share of the pixels at the bright end."""
    digest: bytes
    """Perceptual hash: which of the low frequencies lie above their median (Zauner 2010)."""
    mirrored: bytes
    """The hash of the picture's mirror image."""
    deep: bool
    """The file has more than 8 bits a channel, whatever Pillow made of them."""
    coloured: bool
    """Any pixel has a colour, beyond what JPEG makes of grey."""


def look_at(picture: Image.Image) -> Look:
    """Measures of an opened picture, which is decoded. Raises what Pillow raises for one that is damaged or of no known form."""
    import cv2

    deep = picture.mode.startswith(("I", "F")) or ";16" in str(getattr(picture, "tile", ""))  # known before the pixels are read
    picture.load()
    mode, frames = picture.mode, int(getattr(picture, "n_frames", 1))
    orientation = picture.getexif().get(ORIENTATION, 1)
    grey_HW, coloured = grey_levels(picture), _is_coloured(picture)
    scale = LONGEST / max(grey_HW.shape)
    if scale < 1:
        size = max(1, round(grey_HW.shape[1] * scale)), max(1, round(grey_HW.shape[0] * scale))
        grey_HW = np.asarray(cv2.resize(grey_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
    share_L = np.bincount(grey_HW.reshape(-1), minlength=256) / grey_HW.size
    brightness = float(share_L @ LEVELS)
    return Look(
        mode=mode,
        frames=frames,
        orientation=orientation if orientation in range(1, 9) else 1,
        brightness=brightness,
        contrast=float(np.sqrt(share_L @ (LEVELS - brightness) ** 2)),
        sharpness=_sharpness(grey_HW),
        dark=float(share_L[: DARK + 1].sum()),
        bright=float(share_L[BRIGHT:].sum()),
        digest=perceptual_hash(grey_HW),
        mirrored=perceptual_hash(np.ascontiguousarray(grey_HW[:, ::-1])),
        deep=deep,
        coloured=coloured,
    )


def _is_coloured(picture: Image.Image) -> bool:
    """Whether the channels differ anywhere on a coarse grid of pixels."""
    if picture.mode in GREY:
        return False
    step = max(1, max(picture.size) // LONGEST)
    rgb_HW3 = np.asarray(picture.convert("RGB"))[::step, ::step].astype(np.int16)
    return bool(np.ptp(rgb_HW3, axis=2).max(initial=0) > COLOURLESS)


def _sharpness(grey_HW: NDArray[np.uint8]) -> float:
    import cv2

    edges_HW = cv2.Laplacian(grey_HW, cv2.CV_16S)
    fields = (field for band in np.array_split(edges_HW, THIRDS, axis=0) for field in np.array_split(band, THIRDS, axis=1))
    return max((float(cv2.meanStdDev(field)[1].item() ** 2) for field in fields if field.size), default=0.0)
