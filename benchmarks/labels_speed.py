"""How long the label checks take, and how much memory: `python benchmarks/labels_speed.py [annotations=1000000 images=100000]`.

Generates labels with 20-point polygons in memory (no pixels; every picture counts as read), runs every check once, and prints
the seconds of each, their sum, and the peak of resident memory before and after. Mending and decoding are not in the figures;
compiling (once after an install, then cached) is done on a small dataset before.
"""

import json
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.dataset import Category, Dataset, DatasetInfo, Split
from pipeline.labels.check import Severity
from pipeline.labels.checks import build_checks
from pipeline.labels.columns import Columns
from pipeline.labels.limits import Limits
from pipeline.labels.looks import Look
from pipeline.labels.pictures import Inspection, State

POINTS, CLASSES, SIDE = 20, 80, 640


def main() -> None:
    """Print the figures."""
    chosen = {"annotations": 1_000_000, "images": 100_000} | {k: int(v) for k, v in (word.split("=") for word in sys.argv[1:])}
    shipped = yaml.safe_load((Path(__file__).resolve().parents[1] / "conf/validate/default.yaml").read_text())
    checks = build_checks({code: Severity(value) for code, value in shipped["severity"].items()}, Limits(**shipped["limits"]))
    for check in checks:
        check.find(columns(1000, 100))
    given = columns(chosen["annotations"], chosen["images"])
    before = peak()
    seen = inspections(given.dataset)
    began = time.perf_counter()
    data = Columns(given.dataset, seen)
    seconds, found = {"(columns of all splits)": time.perf_counter() - began}, 0
    for check in checks:
        began = time.perf_counter()
        found += len(check.find(data))
        seconds[check.code] = time.perf_counter() - began
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:10]
    for code, spent in slowest:
        print(f"{spent:6.2f} s  {code}")
    print(f"{sum(seconds.values()):6.2f} s  all {len(checks)} checks, {found} findings")
    figures = {
        **chosen,
        "seconds": round(sum(seconds.values()), 2),
        "peak_gb_labels": round(before, 2),
        "peak_gb": round(peak(), 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(figures))


def columns(annotations: int, images: int) -> Columns:
    """Two splits, nine tenths of everything in train; one label in a thousand has a point out of place."""
    splits = {}
    for name, share in (("train", 0.9), ("val", 0.1)):
        splits[name] = split(name, int(annotations * share), int(images * share))
    categories = tuple(Category(k + 1, f"class {k}") for k in range(CLASSES))
    dataset = Dataset(DatasetInfo(categories, "generated", "by share"), splits)
    return Columns(dataset, inspections(dataset))


def split(name: str, annotations: int, images: int) -> Split:
    """Star-shaped polygons of POINTS points in pictures of SIDE px."""
    rng = np.random.default_rng(len(name))
    image_A = np.sort(rng.integers(0, images, annotations)).astype(np.int32)
    radius_A1 = np.exp(rng.normal(3.3, 0.8, (annotations, 1))).clip(3, SIDE / 4)
    turns_P = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    reach_AP = radius_A1 * rng.uniform(0.7, 1, (annotations, POINTS))
    centre_A2 = radius_A1 + rng.random((annotations, 2)) * (SIDE - 2 * radius_A1)
    points_AP2 = centre_A2[:, None] + reach_AP[..., None] * np.stack([np.cos(turns_P), np.sin(turns_P)], axis=1)
    odd = np.flatnonzero(rng.random(annotations) < 0.001)
    points_AP2[odd, 3] = points_AP2[odd, 13]
    boxes_A4 = np.concatenate([points_AP2.min(axis=1), points_AP2.max(axis=1)], axis=1)
    rows = Annotations(
        ids_A=np.arange(1, annotations + 1),
        image_A=image_A,
        category_A=(category_A := rng.integers(1, CLASSES + 1, annotations)),
        label_A=category_A - 1,
        boxes_A4=boxes_A4,
        area_A=shoelace(points_AP2),
        crowd_A=np.zeros(annotations, np.bool_),
        source_ids=list(range(annotations)),
        polygons=PolygonPool(
            points_AP2.reshape(-1, 2), np.arange(0, annotations * POINTS + 1, POINTS), np.arange(annotations + 1, dtype=np.int64)
        ),
        rle={},
        keypoints_AK3=None,
        extra={},
    )
    sides = np.full(images, SIDE, np.int32)
    table = ImageTable(np.arange(images), [f"{name}{row:07}.jpg" for row in range(images)], sides, sides, {})
    return Split(name, table, rows, Path("nowhere"))


def shoelace(points_AP2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of polygons with equally many points."""
    x, y = (points_AP2 - points_AP2[:, :1]).transpose(2, 0, 1)
    area_A: NDArray[np.float64] = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    return area_A


def inspections(dataset: Dataset) -> dict[str, list[Inspection]]:
    """Every picture good, each with its own digest and hash."""
    rng, made = np.random.default_rng(0), {}
    for name, one in dataset.splits.items():
        hashes = rng.integers(0, 256, (len(one.images), 32), np.uint8)
        light = rng.normal(110, 30, len(one.images))
        made[name] = [
            Inspection(
                State.GOOD,
                SIDE,
                SIDE,
                f"{name}{row}",
                "",
                Look("RGB", 1, 1, light[row], 50.0, 900.0, 0.0, 0.0, hashes[row].tobytes(), hashes[row].tobytes(), False, True),
            )
            for row in range(len(one.images))
        ]
    return made


def peak() -> float:
    """Most resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
