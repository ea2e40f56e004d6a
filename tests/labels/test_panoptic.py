"""Panoptic maps against their list of segments: planted differences are found, a clean twin is quiet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.dataset import Dataset
from pipeline.data.maps import Segments, SplitMaps
from pipeline.labels.check import Severity
from pipeline.labels.checks import CHECKS
from pipeline.labels.columns import Columns
from pipeline.labels.pictures import inspect
from pipeline.predict.map_files import encode_segments
from tests.labels.planted import Planted, settings

CODES = [code for code in CHECKS if code.startswith("panoptic-")]


def with_maps(planted: Planted) -> Dataset:
    """Every picture with a map of two segments, 5 and 70000, of the labels 1 and 2; every file name is the picture's."""
    dataset = planted.dataset()
    for name, split in dataset.splits.items():
        folder = planted.folder / f"panoptic_{name}"
        folder.mkdir()
        ids_HW = np.zeros((80, 100), np.int64)
        ids_HW[10:40, 10:40], ids_HW[20:70, 50:90] = 5, 70000
        for file in split.images.file_names:
            (folder / file).write_bytes(encode_segments(ids_HW))
        listed = [
            (row, number, category, 0, False, 900, [10, 10, 30, 30])
            for row in range(len(split.images))
            for number, category in ((5, 3), (70000, 7))
        ]
        split.maps = SplitMaps(list(split.images.file_names), None, (), folder, Segments.of(listed), [])
    return dataset


def found(dataset: Dataset) -> list[tuple[str, str, str, str]]:
    data = Columns(dataset, inspect(dataset, 10**8))
    checks = [CHECKS[code](Severity.WARNING, settings().limits) for code in CODES]
    return [(f.code, f.split, f.image, f.reason) for check in checks for f in data.listed(check.find(data))]  # type: ignore[misc]


def test_maps_that_fit_are_quiet_and_so_is_a_dataset_without_maps(planted: Planted) -> None:
    assert found(with_maps(planted)) == [] == found(planted.dataset())


def drawn(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    ids_HW = np.zeros((80, 100), np.int64)
    ids_HW[10:40, 10:40], ids_HW[20:70, 50:90] = 5, 70000
    return lambda path: path.write_bytes(encode_segments(change(ids_HW)))  # type: ignore[return-value]


SPOILED: list[tuple[Callable[[Path], None], list[tuple[str, str]]]] = [
    (drawn(lambda ids: np.where(ids == 5, 0, ids)), [("panoptic-segment-without-pixels", "segments 5 have no pixel in the map")]),
    (
        drawn(lambda ids: np.where(ids == 0, 6, ids)),
        [("panoptic-pixels-without-segment", "numbers 6 of the map are no listed segment")],
    ),
    (
        drawn(lambda ids: np.where(ids == 5, 6, ids)),
        [
            ("panoptic-segment-without-pixels", "segments 5 have no pixel in the map"),
            ("panoptic-pixels-without-segment", "numbers 6 of the map are no listed segment"),
        ],
    ),
    (drawn(lambda ids: ids[:, :99]), [("panoptic-map-unreadable", "its map is 99 x 80, the picture 100 x 80")]),
    (Path.unlink, [("panoptic-map-unreadable", "panoptic/b.png: no such map")]),
    (lambda path: path.write_bytes(b"map"), [("panoptic-map-unreadable", "panoptic/b.png: is not a PNG maps are PNG files")]),  # type: ignore[list-item,return-value]
]


@pytest.mark.parametrize(("spoil", "wanted"), SPOILED)
def test_a_spoiled_map_is_found(planted: Planted, spoil: Callable[[Path], None], wanted: list[tuple[str, str]]) -> None:
    dataset = with_maps(planted)
    spoil(planted.folder / "panoptic_train/b.png")
    assert found(dataset) == [(code, "train", "b.png", reason) for code, reason in wanted]
