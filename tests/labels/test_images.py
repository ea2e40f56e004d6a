"""Picture files: planted faults, and the hostile ones of the pack."""

import time
from pathlib import Path

import pytest
from PIL import Image

from pipeline.labels.checks import CHECKS
from pipeline.labels.pictures import State, inspect_picture
from tests.labels.planted import Planted

FILE_CODES = [code for code in CHECKS if code.startswith("image-") and code not in ("image-empty", "image-unlabelled")]


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_jpeg_cut(path: Path) -> None:
    Image.open(path).save(path, "JPEG")
    cut(path, 0.6)


SPOILED = {
    "image-missing": [Path.unlink],
    "image-unreadable": [lambda path: path.write_bytes(b""), lambda path: path.write_text("<svg/>"), as_directory],
    "image-truncated": [lambda path: cut(path, 0.5), as_jpeg_cut],
    "image-size-differs": [lambda path: Image.open(path).rotate(90, expand=True).save(path)],
}


@pytest.mark.parametrize(("code", "spoil"), [(code, spoil) for code, ways in SPOILED.items() for spoil in ways])
def test_a_spoiled_picture_is_found_under_its_code_only(planted: Planted, code: str, spoil) -> None:
    spoil(planted.folder / "b.png")
    found = [finding for other in FILE_CODES for finding in planted.found(other)]
    assert [(f.code, f.split, f.image, f.annotation) for f in found] == [(code, "train", "b.png", None)]


def test_a_good_dataset_is_quiet(planted: Planted) -> None:
    assert not [finding for code in FILE_CODES for finding in planted.found(code)]


def test_size_not_stored_is_not_a_size_that_differs(planted: Planted) -> None:
    planted.picture("train", "x.png", stored=(0, 0))
    (found,) = planted.found("image-size-unknown")
    assert (found.image, found.reason) == ("x.png", "no size stored, the picture is 100 x 80")
    assert not planted.found("image-size-differs")


def test_both_sizes_are_in_the_reason(planted: Planted) -> None:
    planted.picture("train", "x.png", stored=(80, 100))
    assert [f.reason for f in planted.found("image-size-differs")] == ["stored as 80 x 100, the picture is 100 x 80"]


def test_pixel_limit_is_read_from_the_header(planted: Planted) -> None:
    assert len(planted.found("image-too-large", max_pixels=7999)) == 3
    assert not planted.found("image-too-large", max_pixels=8000)


def test_picture_labelled_as_empty_and_picture_without_label_file(planted: Planted) -> None:
    planted.picture("train", "empty.png")
    planted.picture("train", "nobody.png", unlabelled=1)
    assert [f.image for f in planted.found("image-empty")] == ["empty.png"]
    assert [f.image for f in planted.found("image-unlabelled")] == ["nobody.png"]


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.7, 0.95])
def test_a_real_jpeg_cut_anywhere_is_truncated(shared: Path, tmp_path: Path, keep: float) -> None:
    source = shared / "data/bccd_voc/BCCD/JPEGImages/BloodImage_00000.jpg"
    path = tmp_path / "cut.jpg"
    path.write_bytes(source.read_bytes())
    assert inspect_picture(path, 10**8).state == State.GOOD
    cut(path, keep)
    assert inspect_picture(path, 10**8).state == State.TRUNCATED


HOSTILE = {
    "pillow_images/broken.png": State.UNREADABLE,
    "pillow_images/broken_data_stream.png": State.TRUNCATED,
    "pillow_images/decompression_bomb.gif": State.TOO_LARGE,
    "pillow_images/png_decompression_dos.png": State.UNREADABLE,
    "pillow_images/truncated_end_chunk.png": State.TRUNCATED,
    "pillow_images/truncated_image.png": State.TRUNCATED,
    "pillow_images/truncated_jpeg.jpg": State.TRUNCATED,
    "pillow_images/unknown_compression_method.png": State.UNREADABLE,
    "pillow_images/zero_width.gif": State.UNREADABLE,
    "pillow_images/bmp/b/badbitcount.bmp": State.UNREADABLE,
    "pillow_images/bmp/b/badwidth.bmp": State.TOO_LARGE,
    "pillow_images/bmp/b/shortfile.bmp": State.TRUNCATED,
    "pngsuite/png/xcsn0g01.png": State.TRUNCATED,  # pixels decode, their checksum is wrong
    "pngsuite/png/xdtn0g01.png": State.TRUNCATED,
}
"""What Pillow cannot use among the pack's odd pictures; also pngsuite's other x*.png (broken by intent) and the text files."""


@pytest.mark.filterwarnings("ignore:Palette images")
def test_every_hostile_picture_ends_in_a_state_and_no_good_one_is_lost(shared: Path) -> None:
    folder = shared / "data"
    paths = sorted(path for name in ("pillow_images", "pngsuite") for path in (folder / name).rglob("*") if path.is_file())
    assert len(paths) > 150
    began = time.monotonic()
    states = {path.relative_to(folder).as_posix(): inspect_picture(path, 10**8) for path in paths}
    assert time.monotonic() - began < 20
    text = {name: State.UNREADABLE for name in states if name.endswith(("LICENSE", ".txt", ".md"))}
    broken = {name: State.UNREADABLE for name in states if name.startswith("pngsuite/png/x")}
    wanted = dict.fromkeys(states, State.GOOD) | text | broken | HOSTILE
    assert {name: one.state for name, one in states.items()} == wanted
    for name, one in states.items():
        assert bool(one.fault) == (one.state != State.GOOD), name
        assert str(folder) not in one.fault, name
