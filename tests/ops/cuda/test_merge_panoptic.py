"""The kernels of panoptic merging against the twin, bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run
from tests.ops.test_merge_panoptic import CLASSES, case

pytestmark = ON_DEVICE

NAMES = ("masks", "boxes", "scores", "count", "semantic", "sizes")


def tensors(given: dict[str, Any]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(given[name])) for name in NAMES]


def assert_same(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    found, wanted = run("merge_panoptic", *arguments), expected("merge_panoptic", *arguments)
    for mine, twin in zip(found, wanted, strict=True):
        assert mine.dtype == twin.dtype and torch.equal(mine, twin)
    ids, owners, segments = found
    return ids, owners, segments


def test_equals_the_twin_across_words() -> None:
    """Pictures of two words in height, the second's rows and columns cut; padded rows hold boxes and scores too."""
    given = case(1, side=37, detections=6) | {"count": np.array([6, 4]), "sizes": np.array([[37, 37], [33, 21]])}
    ids, owners, _ = assert_same(*tensors(given), CLASSES, 0.5, 5.0, 0.2)
    assert len(ids[0].unique()) > 3 and ids[0, 32:].any() and not ids[1, 33:].any() and not ids[1, :, 21:].any()
    assert ((owners >= 0) & (owners < 6)).any()


@pytest.mark.parametrize("seed", range(4))
def test_overlap_area_and_score(seed: int) -> None:
    """Rules from strict to open; no detection kept, and all of them."""
    overlap, stuff_area, score = [(0.0, 0.0, 0.0), (1.0, 30.0, 0.4), (0.3, 7.5, 0.9), (0.5, 1e9, 0.0)][seed]
    given = case(seed, side=13, detections=5) | {"sizes": np.array([[13, 11], [9, 13]])}
    assert_same(*tensors(given), CLASSES, overlap, stuff_area, score)


def squares(corners: list[tuple[float, float, float, float]], scores: list[float], side: int) -> list[Tensor]:
    """A picture of full masks on ground of class 1."""
    rows = len(corners)
    return [
        torch.ones(1, rows, 3, 3),
        torch.tensor([corners]),
        torch.tensor([scores]),
        torch.tensor([rows]),
        torch.ones(1, side, side, dtype=torch.int64),
        torch.tensor([[side, side]]),
    ]


def test_ties() -> None:
    """Half of the second is taken, which is not more than half; the free ground is exactly as large as asked, then it is not.

    A score equal to the limit is kept; the limit 0.7 lies between two float32 numbers, of which the lower is below it.
    """
    given = squares([(0.0, 0.0, 4.0, 8.0), (2.0, 0.0, 6.0, 8.0)], [0.9, 0.5], side=10)
    assert assert_same(*given, 2, 0.5, 52.0, 0.5)[1].tolist() == [[0, 1, 3, -1]]
    assert assert_same(*given, 2, 0.5, 52.5, 0.5)[1].tolist() == [[0, 1, -1, -1]]
    assert assert_same(*given, 2, float(np.nextafter(0.5, 0)), 0.0, 0.5)[1].tolist() == [[0, 3, -1, -1]]
    assert assert_same(*given, 2, 0.5, 0.0, float(np.nextafter(0.5, 1)))[1].tolist() == [[0, 3, -1, -1]]
    near = np.float32(0.7)
    below = near if float(near) < 0.7 else np.nextafter(near, np.float32(0))
    given[2] = torch.tensor([[float(np.nextafter(below, np.float32(1))), float(below)]])
    assert assert_same(*given, 2, 0.5, 0.0, 0.7)[1].tolist() == [[0, 3, -1, -1]]


def test_what_is_taken_stays_taken() -> None:
    """The second takes pixels below the first's in the same columns; the third lies in the first."""
    given = squares([(0.0, 0.0, 4.0, 8.0), (2.0, 4.0, 8.0, 8.0), (2.0, 0.0, 4.0, 4.0)], [0.9, 0.8, 0.7], side=9)
    assert assert_same(*given, 2, 0.5, 0.0, 0.1)[1].tolist() == [[0, 1, 4, -1, -1]]


def test_pixels_below_the_picture_do_not_count() -> None:
    """Half of the second's four rows in the picture is taken; eight more lie in the padding."""
    given = squares([(0.0, 0.0, 4.0, 4.0), (0.0, 2.0, 4.0, 14.0)], [0.9, 0.8], side=14)
    given[5] = torch.tensor([[6, 14]])
    assert assert_same(*given, 2, 0.4, 0.0, 0.1)[1].tolist() == [[0, 3, -1, -1]]
    assert assert_same(*given, 2, 0.5, 0.0, 0.1)[1].tolist() == [[0, 1, 3, -1]]


def test_boxes_beyond_the_picture_and_without_area() -> None:
    corners = [
        (-9.0, -9.0, 3.0, 3.0),
        (20.0, 0.0, 30.0, 5.0),
        (4.0, 4.0, 4.0, 9.0),
        (6.0, 5.0, 15.0, 14.0),
        (-99.0, -99.0, 99.0, 99.0),
    ]
    ids, owners, _ = assert_same(*squares(corners, [0.9, 0.8, 0.7, 0.6, 0.5], side=9), 2, 0.6, 0.0, 0.1)
    assert owners[0, :3].tolist() == [0, 3, 4] and ids.min() == 1
    corners = [(-float("inf"), 0.0, 5.0, 5.0), (0.0, 0.0, float("nan"), 5.0)]
    assert assert_same(*squares(corners, [0.9, 0.8], side=9), 2, 0.6, 0.0, 0.1)[1].tolist() == [[3, -1, -1, -1]]


@pytest.mark.parametrize("dtype", HALF_TYPES[1:])
def test_half_types_that_do_not_lie_in_a_row(dtype: torch.dtype) -> None:
    masks, boxes, scores, count, semantic, sizes = tensors(
        case(5, side=12, detections=4) | {"sizes": np.array([[12, 9], [8, 12]])}
    )
    turned = masks.to(dtype).transpose(2, 3), boxes.to(dtype).mT.contiguous().mT, scores.to(dtype), count.int()
    assert_same(*turned, semantic.mT.to(torch.uint8), sizes.int(), CLASSES, 0.5, 3.0, 0.1)


def test_nothing() -> None:
    given = tensors(case(3, images=1, detections=1, side=12))
    nobody = [given[0][:, :0], given[1][:, :0], given[2][:, :0], torch.tensor([0]), *given[4:]]
    assert assert_same(*nobody, CLASSES, 0.5, 0.0, 0.5)[2].tolist() == [len(given[4].unique()) - 1]
    assert assert_same(*(tensor[:0] for tensor in given), CLASSES, 0.5, 0.0, 0.5)[0].shape == (0, 12, 12)
    assert_same(*given[:4], given[4][:, :0], given[5] * 0, CLASSES, 0.5, 0.0, 0.5)


def test_another_class_stays_without_a_segment() -> None:
    """The CPU refuses such a map; the device reads and writes nothing beyond its tables (the simulator would raise)."""
    given = squares([(0.0, 0.0, 4.0, 4.0)], [0.9], side=8)
    given[4][0, 6:] = torch.tensor([2, -1, 10**12, 1, 1, 1, 255, -(10**12)])
    ids, owners, segments = run("merge_panoptic", *given, 2, 0.5, 0.0, 0.5)
    assert owners.tolist() == [[0, 2, -1]] and segments.tolist() == [2]
    assert ((ids[0] == 0) == (given[4][0] != 1)).all() and (ids[0, :4, :4] == 1).all()


def test_counts_and_sizes_are_held_inside_the_tensors() -> None:
    given = squares([(0.0, 0.0, 4.0, 4.0)], [0.9], side=8)
    wanted = expected("merge_panoptic", *given, 2, 0.5, 0.0, 0.5)
    given[3], given[5] = torch.tensor([7]), torch.tensor([[40, 9]])
    assert all(map(torch.equal, run("merge_panoptic", *given, 2, 0.5, 0.0, 0.5), wanted))
