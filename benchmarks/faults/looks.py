"""Faults of what pictures look like, and pictures that are there twice. All in copies of the pictures."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.files import opened, spoil_pictures
from benchmarks.faults.planter import planter


@planter(
    "image-near-empty",
    "bccd coco",
    "one colour all over, or a slow change of it by up to 8 levels, with noise of 0 to 2.5 levels",
)
def flat(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        noise, colour = float(draft.rng.uniform(0, 2.5)), draft.rng.integers(0, 256, 3)
        kind, size = str(draft.rng.choice(["one colour", "slow change"])), (image["height"], image["width"])
        pixels_HW3 = np.tile(colour.astype(np.float64), (*size, 1))
        if kind == "slow change":
            pixels_HW3 += np.linspace(0, draft.rng.uniform(2, 8), size[1])[None, :, None]
        pixels_HW3 += draft.rng.normal(0, noise, (*size, 1))  # of a grey sensor: the same in all channels
        Image.fromarray(np.clip(np.rint(pixels_HW3), 0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)
        return kind

    return spoil_pictures(draft, spoil)


@planter(
    "image-blurred",
    "bccd coco",
    "out of focus by a Gaussian of 0.6 to 2 % of the longer side, or shaken along a line of 3 to 8 %",
)
def blurred(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        picture, longer = opened(path), max(image["width"], image["height"])
        if draft.rng.integers(2):
            share = float(draft.rng.uniform(0.006, 0.02))
            picture.filter(ImageFilter.GaussianBlur(share * longer)).save(path, "JPEG", quality=90)
            return "out of focus, " + ("0.6 to 1 %" if share < 0.01 else "1 to 2 %")
        length = max(3, round(float(draft.rng.uniform(0.03, 0.08)) * longer))
        turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(draft.rng.uniform(0, 180)), 1)
        line = np.zeros((length, length), np.float32)
        line[length // 2] = 1
        kernel = cv2.warpAffine(line, turn, (length, length))
        shaken = cv2.filter2D(np.asarray(picture), -1, kernel / kernel.sum())
        Image.fromarray(shaken).save(path, "JPEG", quality=90)
        return "shaken"

    return spoil_pictures(draft, spoil)


def exposed(draft: Draft, path: Path, white: bool) -> str:
    """Make 40 to 100 % of the pixels white, or black, by a longer or shorter exposure."""
    rgb_HW3, share = np.asarray(opened(path)).astype(np.float64), float(draft.rng.uniform(0.4, 1))
    grey_HW = rgb_HW3.mean(axis=2)
    if white:
        rgb_HW3 *= 255 / max(float(np.quantile(grey_HW, 1 - share)), 1)
    else:
        line = float(np.quantile(grey_HW, share))
        rgb_HW3 = (rgb_HW3 - line) * 0.5
    pixels: NDArray[np.uint8] = np.clip(rgb_HW3, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=90)
    return "40 to 60 %" if share < 0.6 else "60 to 100 %"


@planter("image-overexposed", "bccd coco", "so much light that 40 to 100 % of the pixels have reached white")
def overexposed(draft: Draft) -> list[Place]:
    return spoil_pictures(draft, lambda path, image: exposed(draft, path, white=True))


@planter("image-underexposed", "bccd coco", "so little light that 40 to 100 % of the pixels are black")
def underexposed(draft: Draft) -> list[Place]:
    return spoil_pictures(draft, lambda path, image: exposed(draft, path, white=False))


def copied(draft: Draft, across: bool, near: bool) -> list[Place]:
    """Copies of pictures, with or without their labels, in another split or their own."""
    places = []
    for split, image in draft.some_images(min(20, len(draft.images()) // 5)):
        others = [name for name in draft.splits if name != split]
        target = others[int(draft.rng.integers(len(others)))] if across else split
        labels = draft.own(split, image) if draft.rng.integers(2) else []
        stem, _, suffix = image["file_name"].rpartition(".")
        source = draft.folder / "images" / image["file_name"]
        new, path = draft.add_picture(target, image, f"{stem}_copy.{suffix}", labels)
        kind = near_copy(draft, source, path, new) if near else "same bytes"
        if not near:
            shutil.copyfile(source, path)
        places += [Place(kind, target, new["file_name"], twins=(image["file_name"],))]
    return places


def near_copy(draft: Draft, source: Path, path: Path, image: Record) -> str:
    """Write the picture again in a way that people would not notice at once; says which."""
    picture, rng = opened(source), draft.rng
    kind = str(rng.choice(["compressed anew", "scaled", "other light", "cropped by 1 to 5 %", "text written on it", "mirrored"]))
    quality = 90
    if kind == "compressed anew":
        quality = int(rng.integers(30, 96))
    elif kind == "scaled":
        factor = float(rng.uniform(0.25, 1.5))
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
    elif kind == "other light":
        picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.8, 1.2)))
        picture = ImageEnhance.Contrast(picture).enhance(float(rng.uniform(0.8, 1.2)))
    elif kind == "cropped by 1 to 5 %":
        dx, dy = (round(float(rng.uniform(0.01, 0.05)) * side) for side in picture.size)
        picture = picture.crop((dx, dy, picture.width, picture.height))
    elif kind == "mirrored":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    else:
        marked = np.array(picture)
        cv2.putText(
            marked,
            "SAMPLE",
            (picture.width // 20, picture.height // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            picture.width / 320,
            (255, 255, 255),
            2,
        )
        picture = Image.fromarray(marked)
    image["width"], image["height"] = picture.size
    picture.save(path, "JPEG", quality=quality)
    return kind


@planter("image-in-two-splits", "bccd coco", "a copy of a picture's file in another split, with its labels or without")
def leaked(draft: Draft) -> list[Place]:
    return copied(draft, across=True, near=False)


@planter("image-repeated", "bccd coco", "a copy of a picture's file in its own split, with its labels or without")
def repeated(draft: Draft) -> list[Place]:
    return copied(draft, across=False, near=False)


NEAR = "quality 30 to 95, scaled by 0.25 to 1.5, light and contrast a fifth other, cropped, with text on it, or mirrored"


@planter("image-near-leaked", "bccd coco", f"a copy in another split: {NEAR}", 3)
def near_leaked(draft: Draft) -> list[Place]:
    return copied(draft, across=True, near=True)


@planter("image-near-repeated", "bccd coco", f"a copy in the same split: {NEAR}", 3)
def near_repeated(draft: Draft) -> list[Place]:
    return copied(draft, across=False, near=True)
