"""Faults of picture files, all in copies: what cannot be read, is of another size, or is stored in another way."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter

SpoilFile = Callable[[Path, Record], str | None]
"""Spoils the copy of a picture and says how; the record is its own."""


def spoil_pictures(draft: Draft, spoil: SpoilFile, most: int = 15) -> list[Place]:
    """Spoil up to `most` pictures drawn at random, and at most a fifth of all."""
    chosen = draft.some_images(min(most, len(draft.images()) // 5))
    done = [(split, image["file_name"], spoil(draft.picture(image), image)) for split, image in chosen]
    return [Place(kind, split, name) for split, name, kind in done if kind is not None]


def opened(path: Path) -> Image.Image:
    """The picture in RGB."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


@planter("image-missing", "bccd coco", "a file deleted, or renamed to another case of its suffix")
def missing(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        if draft.rng.integers(2):
            path.unlink()
            return "deleted"
        path.rename(path.with_suffix(path.suffix.upper()))
        return "renamed"

    return spoil_pictures(draft, spoil)


@planter(
    "image-unreadable", "bccd coco", "a web page or nothing in place of the picture, zeros all over, or the first bytes lost"
)
def unreadable(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        kind, data = str(draft.rng.choice(["web page", "empty", "zeros", "first bytes lost"])), path.read_bytes()
        path.write_bytes(
            {
                "web page": b"<!DOCTYPE html><title>404 Not Found</title>",
                "empty": b"",
                "zeros": bytes(len(data)),
                "first bytes lost": data[int(draft.rng.integers(2, 100)) :],
            }[kind]
        )
        return kind

    return spoil_pictures(draft, spoil)


@planter(
    "image-truncated",
    "bccd coco",
    "a file of which 5 to 99 % came; the rest lost or zeros; a block of 200 to 4,000 bytes overwritten",
    3,
)
def truncated(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        kind = str(draft.rng.choice(["JPEG cut", "JPEG zeros behind", "JPEG block lost", "PNG cut", "PNG block lost"]))
        if kind.startswith("PNG"):
            opened(path).save(path, "PNG")
        data = path.read_bytes()
        header = data.find(b"\xff\xda") + 20 if kind.startswith("JPEG") else 60
        kept = int(max(header, len(data) * draft.rng.uniform(0.05, 0.99)))
        if kind.endswith("block lost"):
            start = int(draft.rng.integers(header, max(header + 1, len(data) - 4100)))
            block = draft.rng.bytes(int(draft.rng.integers(200, 4001)))
            data = data[:start] + block + data[start + len(block) :]
        else:
            data = data[:kept] + (bytes(len(data) - kept) if "zeros" in kind else b"")
        path.write_bytes(data)
        return kind

    return spoil_pictures(draft, spoil)


@planter(
    "image-too-large", "coco", "a PNG of 101 to 170 million pixels that is 20 kB; a header that promises 0.2 to 4,000 million", 1
)
def bomb(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        if draft.rng.integers(2):
            side = int(draft.rng.integers(10_050, 13_000))
            Image.new("1", (side, side)).save(path, "PNG")
            return "real pixels"
        side = int(draft.rng.integers(14_150, 65_000))
        chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        buffer = io.BytesIO()
        opened(path).save(buffer, "PNG")
        rest = buffer.getvalue()[33:]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest)
        return "header only"

    return spoil_pictures(draft, spoil, most=8)


@planter("image-size-unknown", "bccd coco", "width and height, or one of them, null, 0 or not there")
def no_size(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        kind = str(draft.rng.choice(["null", "0", "not there"]))
        for key in [["width"], ["height"], ["width", "height"]][int(draft.rng.integers(3))]:
            image[key] = None if kind == "null" else 0
            if kind == "not there":
                del image[key]
        return kind

    return spoil_pictures(draft, spoil)


@planter(
    "image-size-differs", "bccd coco", "a picture scaled by 0.5 to 2, cropped by 1 to 30 % of a side, or turned, after labelling"
)
def other_size(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str | None:
        picture, kind = opened(path), str(draft.rng.choice(["scaled", "cropped", "turned"]))
        w, h = picture.size
        if kind == "scaled":
            factor = float(draft.rng.uniform(0.5, 2))
            picture = picture.resize((round(w * factor), round(h * factor)))
        elif kind == "cropped":
            cut = float(draft.rng.uniform(0.01, 0.3))
            picture = picture.crop((round(w * cut), 0, w, h))
        else:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        if picture.size == (w, h):
            return None
        picture.save(path, "JPEG", quality=90)
        return kind

    return spoil_pictures(draft, spoil)


@planter("image-exif-turned", "bccd coco", "EXIF orientation 2 to 8 in a JPEG file")
def turned(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        picture, exif = opened(path), Image.Exif()
        exif[0x0112] = int(draft.rng.integers(2, 9))
        picture.save(path, "JPEG", quality=90, exif=exif)
        return "turned or mirrored"

    return spoil_pictures(draft, spoil)


@planter("image-deep", "bccd coco", "16 bits a channel in grey or colour (PNG, TIFF), or 32-bit floats (TIFF)")
def deep(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        rgb_HW3 = np.asarray(opened(path)).astype(np.uint16) * 257
        kind = str(draft.rng.choice(["grey PNG", "colour PNG", "colour TIFF", "grey TIFF", "float TIFF"]))
        grey_HW = rgb_HW3.mean(axis=2)
        pixels = {"float TIFF": (grey_HW / 65535).astype(np.float32)}.get(kind, grey_HW.astype(np.uint16))
        if kind.startswith("colour"):
            pixels = rgb_HW3[..., ::-1]
        done, data = cv2.imencode(".png" if kind.endswith("PNG") else ".tiff", pixels)
        assert done, kind
        path.write_bytes(data.tobytes())
        return kind

    return spoil_pictures(draft, spoil)


@planter("image-cmyk", "bccd coco", "a JPEG or TIFF file in CMYK")
def printed(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        kind = str(draft.rng.choice(["JPEG", "TIFF"]))
        opened(path).convert("CMYK").save(path, kind)
        return kind

    return spoil_pictures(draft, spoil)


@planter("image-animated", "bccd coco", "an animation of 2 to 8 frames: GIF, WebP, PNG or TIFF")
def animated(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        picture, kind = opened(path), str(draft.rng.choice(["GIF", "WEBP", "PNG", "TIFF"]))
        small = picture.resize((picture.width // 4 * 2, picture.height // 4 * 2))
        image["width"], image["height"] = small.size
        frames = [small.rotate(5 * number) for number in range(1, int(draft.rng.integers(2, 9)))]
        small.save(path, kind, save_all=True, append_images=frames)
        return kind

    return spoil_pictures(draft, spoil, most=10)


@planter("image-grey", "bccd coco", "a picture without colour, stored in grey or as RGB")
def grey(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        picture, kind = opened(path).convert("L"), str(draft.rng.choice(["stored in grey", "JPEG in RGB", "PNG in RGB"]))
        if "RGB" in kind:
            picture = picture.convert("RGB")
        picture.save(path, "PNG" if "PNG" in kind else "JPEG")
        return kind

    return spoil_pictures(draft, spoil)


@planter("image-small", "bccd coco", "a thumbnail whose shorter side has 8 to 40 px, its labels scaled with it")
def small(draft: Draft) -> list[Place]:
    def spoil(path: Path, image: Record) -> str:
        picture, side = opened(path), int(draft.rng.integers(8, 41))
        factor = side / min(picture.size)
        picture = picture.resize((max(side, round(picture.width * factor)), max(side, round(picture.height * factor))))
        picture.save(path, "PNG")
        image["width"], image["height"] = picture.size
        for split in draft.splits:
            for label in draft.own(split, image) if any(one is image for one in draft.labels[split]["images"]) else ():
                label["bbox"] = [value * factor for value in label["bbox"]]
        return "8 to 31 px" if side < 32 else "32 to 40 px"

    return spoil_pictures(draft, spoil)
