"""The generated dataset: the same bytes every time, and labels that an independent rasteriser agrees with."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.data.dataset import open_dataset
from pipeline.data.formats.shapes import FORMS, clipped, coverage, draw_picture
from pipeline.errors import ConfigError
from pipeline.files import digest_tree
from tests.data.conftest import Ingest, dataset_config

SMALL = {"size": 64, "train": 12, "val": 6}


def shapes(ingest: Ingest, root, **settings):
    return ingest("shapes", root / "pipeline/data/formats/shapes.py", **(SMALL | settings))


def test_a_seed_gives_the_same_bytes_in_another_process(ingest: Ingest, root, tmp_path):
    one, two, other = shapes(ingest, root), shapes(ingest, root), shapes(ingest, root, seed=1)
    assert digest_tree(one) == digest_tree(two) != digest_tree(other)
    code = (
        "import sys; from pathlib import Path; from tests.data.conftest import dataset_config;"
        "from pipeline.data.formats.shapes import draw_shapes; from pipeline.data.dataset import write_dataset;"
        f"cfg = dataset_config(Path('.'), 'shapes', **{SMALL}); out = Path(sys.argv[1]);"
        "write_dataset(out, draw_shapes(cfg, 0, out / 'images'))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root, env=environment)
    assert digest_tree(tmp_path) == digest_tree(one)


def test_more_pictures_leave_the_first_ones_as_they_are(ingest: Ingest, root):
    few, many = shapes(ingest, root), shapes(ingest, root, train=14)
    for path in (few / "images").iterdir():
        assert path.read_bytes() == (many / "images" / path.name).read_bytes()


def test_threads_do_not_matter(root):
    cfg = dataset_config(root, "shapes", **SMALL)

    def draw(number: int) -> bytes:
        return draw_picture(cfg, np.random.Generator(np.random.PCG64([0, 0, number])))[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(16))) == [draw(number) for number in range(16)]


def test_labels_agree_with_pillows_rasteriser(ingest: Ingest, root):
    """Polygons drawn by Pillow at 8 times the size: their extent is the box, their count the area, inside the picture."""
    dataset = open_dataset(shapes(ingest, root, train=20))
    assert dataset.info.tasks == ("box", "mask", "keypoints", "semantic", "panoptic", "densepose")
    assert dataset.classes == ("disc", "rectangle", "triangle")
    split = dataset.split("train")
    table = split.annotations
    for row in range(len(table)):
        (polygon,) = table.polygons.polygons_of(row)
        canvas = Image.new("1", (512, 512))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in (polygon * 8 - 0.5).tolist()], fill=1)
        ys, xs = np.nonzero(np.asarray(canvas))
        extent = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 8
        np.testing.assert_allclose(table.boxes_A4[row], extent, atol=0.3)
        assert table.area_A[row] == pytest.approx(len(xs) / 64, rel=0.08)
        assert (table.boxes_A4[row] >= 0).all() and (table.boxes_A4[row] <= 64).all()
        assert min(table.boxes_A4[row, 2:] - table.boxes_A4[row, :2]) >= 5.9
    assert np.bincount(table.label_A, minlength=3).min() > 0


def test_visibility_is_what_the_picture_shows(ingest: Ingest, root):
    """A keypoint is covered (1) exactly when a later shape's polygon, drawn by Pillow, lies over it."""
    dataset = open_dataset(shapes(ingest, root, train=60, objects=[4, 6], diameter=[0.3, 0.6]))
    split, seen = dataset.split("train"), {1: 0, 2: 0}
    for image in range(len(split.images)):
        rows = split.rows_of(image)
        for row in range(rows.start, rows.stop):
            canvas = Image.new("1", (512, 512))
            for later in range(row + 1, rows.stop):
                ImageDraw.Draw(canvas).polygon(
                    [tuple(p) for p in (split.annotations.polygons.polygons_of(later)[0] * 8 - 0.5).tolist()], fill=1
                )
            over = np.asarray(canvas)
            for x, y, visibility in split.annotations.keypoints_AK3[row]:
                if visibility > 0:
                    left, top = int((x + 0.5) * 8), int((y + 0.5) * 8)
                    near = over[max(0, top - 8) : top + 9, max(0, left - 8) : left + 9]
                    if near.all() or not near.any():  # within a pixel of an edge both answers are right
                        assert visibility == (1 if near.all() else 2)
                        seen[int(visibility)] += 1
    assert min(seen.values()) > 10


def test_keypoints_lie_on_their_outline_in_cocos_convention(ingest: Ingest, root):
    dataset = open_dataset(shapes(ingest, root, train=30))
    split = dataset.split("train")
    assert [len(category.keypoints) for category in dataset.info.categories] == [1, 4, 3]
    for row, points in enumerate(split.annotations.keypoints_AK3):
        label = split.annotations.label_A[row]
        (polygon,) = split.annotations.polygons.polygons_of(row)
        real = points[~np.isnan(points).any(axis=1)]
        assert len(real) == len(FORMS[label].keypoints)
        for x, y, visibility in real:
            inside = FORMS[label].name == "disc" or np.abs(polygon - (x + 0.5, y + 0.5)).sum(axis=1).min() < 0.03
            assert inside if visibility else (x, y) == (0, 0)
    words = json.dumps([category.as_json() for category in dataset.info.categories])
    assert "top_left" in words and "tip" in words


def test_coverage_equals_supersampling():
    chance = np.random.default_rng(0)
    for form in FORMS:
        points = form.outline_P2 * chance.uniform(5, 14) + chance.uniform(10, 22, 2)
        fine = (np.mgrid[0:512, 0:512][::-1] + 0.5) / 16
        inside = np.ones((512, 512), bool)
        for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
            inside &= (b[0] - a[0]) * (fine[1] - a[1]) - (b[1] - a[1]) * (fine[0] - a[0]) >= 0
        exact = inside.reshape(32, 16, 32, 16).mean(axis=(1, 3))
        ours = coverage(points, np.mgrid[0:32, 0:32][::-1] + 0.5)
        assert np.abs(ours - exact).max() < 0.3 and np.abs(ours - exact).mean() < 0.005


def test_clipping_keeps_the_part_inside():
    square = np.array([[-5.0, -5.0], [5.0, -5.0], [5.0, 5.0], [-5.0, 5.0]])
    assert sorted(map(tuple, clipped(square, 100).tolist())) == [(0, 0), (0, 5), (5, 0), (5, 5)]
    assert len(clipped(square - 50, 100)) == 0
    np.testing.assert_array_equal(clipped(square + 50, 100), square + 50)


def test_default_pictures_are_varied(root):
    cfg = dataset_config(root, "shapes")
    counts, sides = [], []
    for number in range(40):
        pixels, labels = draw_picture(cfg, np.random.Generator(np.random.PCG64([0, 0, number])))
        assert pixels.shape == (160, 160, 3) and pixels.std() > 3
        counts.append(len(labels))
        sides += [max(label["bbox"][2:]) for label in labels]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert min(sides) < 32 and max(sides) > 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"train": 0},
        {"objects": [3, 1]},
        {"objects": [0, 1]},
        {"diameter": [0.5, 0.1]},
        {"diameter": [0.0, 0.1]},
        {"hidden": 1.0},
    ],
    ids=str,
)
def test_wrong_settings_name_the_field(root, wrong):
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(wrong))}"):
        dataset_config(root, "shapes", **wrong)
