"""Looks of pictures: a planted oddity is found under its code, clean pictures are quiet; near-duplicates in and across splits."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.data.perceptual import perceptual_hash
from pipeline.labels.checks import CHECKS
from tests.labels.planted import Planted

CODES = [check.code for check in CHECKS.values() if check.__module__.endswith(("appearance", "near_pictures"))]


def save(change: Callable[[Image.Image], Image.Image], **options: object) -> Callable[[Path], None]:
    return lambda path: change(Image.open(path).convert("RGB")).save(path, **options)  # type: ignore[arg-type]


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def deep(path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65535, (80, 100)).astype(np.uint16)
    Image.fromarray(values).save(path)


def deep_colours(path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65535, (80, 100, 3)).astype(np.uint16)
    assert cv2.imwrite(str(path), values)


def animated(path: Path) -> None:
    first = Image.open(path).convert("RGB")
    first.save(path, save_all=True, append_images=[first.rotate(90), first.rotate(180)])


def half(level: int) -> Callable[[Image.Image], Image.Image]:
    """The upper 60 % of the picture at one level."""

    def change(picture: Image.Image) -> Image.Image:
        pixels = np.array(picture)
        pixels[:48] = level
        return Image.fromarray(pixels)

    return change


ODD: list[tuple[str, Callable[[Path], None], str]] = [
    ("image-exif-turned", turned, "EXIF orientation 6: shown turned by 90°"),
    ("image-cmyk", save(lambda picture: picture.convert("CMYK"), format="JPEG"), "pixels of mode CMYK"),
    ("image-animated", animated, "3 frames"),
    ("image-grey", save(lambda picture: picture.convert("L")), "stored in grey"),
    ("image-grey", save(lambda picture: picture.convert("L").convert("RGB"), format="JPEG"), "stored as RGB, without colour"),
    ("image-deep", deep_colours, "more than 8 bits a channel, read as mode RGB"),
    ("image-near-empty", save(lambda picture: picture.point(lambda level: 120 + level // 64)), "its grey levels deviate by "),
    ("image-blurred", save(lambda picture: picture.filter(ImageFilter.GaussianBlur(3))), "sharpness "),
    ("image-overexposed", save(half(255)), "60% of the pixels are white"),
    ("image-underexposed", save(half(0)), "60% of the pixels are black"),
]


@pytest.mark.parametrize(("code", "spoil", "reason"), ODD)
def test_an_odd_picture_is_found_under_its_code_only(planted: Planted, code: str, spoil: Callable, reason: str) -> None:
    spoil(planted.folder / "b.png")
    found = planted.found_by(CODES)
    assert [(f.code, f.split, f.image, f.annotation) for f in found] == [(code, "train", "b.png", None)]
    assert found[0].reason.startswith(reason)


def test_sixteen_bits_are_grey_too(planted: Planted) -> None:
    deep(planted.folder / "b.png")
    found = planted.found_by(CODES)
    assert [(f.code, f.image) for f in found] == [("image-deep", "b.png"), ("image-grey", "b.png")]


def test_small_picture(planted: Planted) -> None:
    for side in (31, 32):
        save(lambda picture, side=side: picture.crop((0, 0, 100, side)))(planted.picture("train", f"{side}.png"))
    assert [(f.image, f.reason) for f in planted.found("image-small")] == [("31.png", "100 x 31 pixels")]


def test_pictures_too_small_for_the_model(planted: Planted) -> None:
    """100 x 80 pixels: the shorter side counts, unless the longer one reaches its limit first."""
    save(lambda picture: picture.crop((0, 0, 60, 50)))(planted.picture("train", "small.png"))
    for network, small in (
        ((200, 1000), []),
        ((201, 1000), [50]),
        ((321, 1000), [80, 80, 80, 50]),
        ((400, 240), []),
        ((400, 401), [80, 80, 80, 50]),
    ):
        planted.network = network
        found = planted.found("image-small")
        assert sorted(int(f.reason.split()[2]) for f in found) == sorted(small), network
    assert found[0].reason == "100 x 80 pixels, enlarged 4.0 times"


def test_clean_pictures_are_quiet(planted: Planted) -> None:
    assert not planted.found_by(CODES)


def test_pictures_that_cannot_be_read_break_no_other(planted: Planted) -> None:
    (planted.folder / "a.png").write_bytes(b"no picture")
    (planted.folder / "c.png").unlink()
    save(half(0))(planted.folder / "b.png")
    assert [(f.code, f.image) for f in planted.found_by(CODES)] == [("image-underexposed", "b.png")]


def test_a_grey_or_soft_dataset_is_no_fault(planted: Planted) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(lambda picture: picture.convert("L").filter(ImageFilter.GaussianBlur(3)))(planted.folder / name)
    assert not planted.found("image-grey") and not planted.found("image-blurred")


# -- near-duplicates --


def scene(seed: int) -> Image.Image:
    """Soft blobs: unlike noise, such a picture survives compression and scaling, as photographs do."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 15, 3), np.uint8)
    return Image.fromarray(noise).resize((300, 240), Image.Resampling.BICUBIC)


COPIES = {
    "compressed": lambda picture, path: picture.save(path, "JPEG", quality=60),
    "scaled": lambda picture, path: picture.resize((200, 160)).save(path),
    "brighter": lambda picture, path: picture.point(lambda level: min(255, level * 1.1 + 5)).save(path),
    "mirrored": lambda picture, path: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path),
    "a pixel aside": lambda picture, path: picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0)).save(path),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    ("splits", "code"), [(("train", "val"), "image-near-leaked"), (("train", "train"), "image-near-repeated")]
)
def test_a_near_copy_is_found_where_it_is(planted: Planted, copy: str, splits: tuple[str, str], code: str) -> None:
    for number in range(6):
        scene(number).save(planted.picture("train", f"other{number}.png"))
    scene(99).save(planted.picture(splits[0], "first.png"))
    COPIES[copy](scene(99), planted.picture(splits[1], "second.png"))
    found = planted.found_by(["image-near-leaked", "image-near-repeated"])
    wanted = ("train", "first.png") if splits[1] == "val" else ("train", "second.png")  # the one nearer to training
    assert [(f.code, f.split, f.image) for f in found] == [(code, *wanted)]
    assert found[0].reason.startswith(
        "looks nearly like " + ("second.png in val" if splits[1] == "val" else "first.png in train")
    )


def test_equal_files_are_the_matter_of_another_check(planted: Planted) -> None:
    for split in ("train", "val"):
        planted.picture(split, f"{split}.png", seed=4)
    assert planted.found("image-in-two-splits") and not planted.found("image-near-leaked")


def test_pairs_are_those_of_brute_force(planted: Planted) -> None:
    """Through the pieces of the hash no pair is lost."""
    rng = np.random.default_rng(2)
    for number in range(40):
        pixels = np.asarray(scene(number // 4).convert("L"), np.int64) + rng.integers(-6, 7, (240, 300))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(planted.picture("train", f"{number:02}.png"))
    names = [f"{number:02}.png" for number in range(40)]
    hashes = [perceptual_hash(np.asarray(Image.open(planted.folder / name))) for name in names]
    bits = np.array([np.unpackbits(np.frombuffer(one, np.uint8)) for one in hashes])
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    wanted = {names[b] for a in range(40) for b in range(a + 1, 40) if distance[a, b] <= 9}
    assert 10 < len(wanted) <= 30
    assert {f.image for f in planted.found("image-near-repeated", hash_bits=9)} == wanted
