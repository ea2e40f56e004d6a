"""Pixels as the network sees them: the reference's sizes and resampling, channels, padding; and files that are no pictures."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from pipeline.predict.preprocess import prepare, read_image, resize, resized_shape, stack


def test_sizes_of_the_reference(shared):
    table = np.load(shared / "parity/ops.npz")["resize/table_h_w_short_max_newh_neww"]
    assert len(table) >= 32
    for height, width, short, longest, new_height, new_width in table.tolist():
        assert resized_shape(height, width, short, longest) == (new_height, new_width)


def test_pixels_of_the_reference(shared):
    golden = np.load(shared / "parity/ops.npz")
    names = [name for name in golden if name.startswith("resize/pil_bilinear_")]
    assert len(names) == 3
    for name in names:
        height, width = map(int, name.rsplit("_", 1)[1].split("x"))
        np.testing.assert_array_equal(resize(golden["resize/img"], height, width), golden[name])


def test_a_hair_thin_picture_keeps_a_pixel():
    assert resized_shape(1, 5000, 64, 128) == (1, 128)


@pytest.mark.parametrize(("channels", "expected"), [("rgb", [10, 20, 30]), ("bgr", [30, 20, 10])])
def test_channel_order_and_padding(channels, expected):
    image = np.tile(np.array([10, 20, 30], np.uint8), (40, 50, 1))
    wide = np.tile(np.array([10, 20, 30], np.uint8), (40, 70, 1))
    shape = SimpleNamespace(short_side=40, long_side=70, channels=channels)
    pixels, sizes = stack([prepare(image, shape), prepare(wide, shape)], 32)
    assert pixels.shape == (2, 3, 64, 96)
    assert pixels.dtype == np.uint8
    assert sizes.tolist() == [[40, 50], [40, 70]]
    assert sizes.dtype == np.int64
    assert pixels[0, :, 39, 49].tolist() == expected
    assert not pixels[0, :, 40:].any()
    assert not pixels[0, :, :, 50:].any()
    assert not pixels[1, :, :, 70:].any()


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65535, 40000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[:, :, 0].tolist() == (values >> 8).tolist()


def test_stored_pixels_whatever_exif_says(tmp_path):
    picture = Image.new("RGB", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (20, 30, 3)


def test_every_hostile_picture_is_read_or_refused_by_name(shared):
    files = [p for folder in ("pillow_images", "pngsuite") for p in sorted((shared / "data" / folder).rglob("*")) if p.is_file()]
    pictures = [p for p in files if p.suffix in (".png", ".jpg", ".gif", ".bmp", ".tif", ".pgm", ".jp2")]
    refused, named = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd headers
        for path in pictures:
            try:
                image = read_image(path)
            except DataError as error:
                refused.append(path.name)
                named.append(str(error).startswith(f"{path}: "))
            else:
                assert image.ndim == 3
                assert image.shape[2] == 3
                assert image.dtype == np.uint8
                assert image.size
    assert all(named)
    assert {"broken.png", "truncated_image.png", "decompression_bomb.gif", "zero_width.gif"} <= set(refused)
    assert "hopper_orientation_6.jpg" not in refused
    assert len(refused) < len(pictures) / 2


def test_a_missing_picture_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.png: no such picture"):
        read_image(tmp_path / "nowhere.png")
