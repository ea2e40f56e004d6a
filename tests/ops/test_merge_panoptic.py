"""Panoptic merging against a plain reference of whole masks, and its numpy form in predict against both."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from ops_cuda import merge_panoptic
from pipeline.predict.panoptic import Merging, merged
from pipeline.predict.postprocess import paste_mask

CLASSES = 4


def rule(overlap: float, stuff_area: float, score: float) -> Merging:
    return Merging(overlap, stuff_area, score, tuple(range(11, 10 + CLASSES)))


def case(seed: int, images: int = 2, detections: int = 8, side: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    corner = random.uniform(-4, side - 8, (images, detections, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.5, side, (images, detections, 2))], axis=2).astype(np.float32)
    return {
        "masks": random.uniform(0, 1, (images, detections, 7, 7)).astype(np.float32),
        "boxes": np.clip(boxes, 0, side),
        "scores": -np.sort(-random.uniform(0, 1, (images, detections)), axis=1).astype(np.float32),
        "count": random.integers(0, detections + 1, images),
        "semantic": random.integers(0, CLASSES, (images, 5, 6)).repeat(8, 1).repeat(7, 2)[:, :side, :side],
        "sizes": np.stack([np.full(images, side) - np.arange(images) * 7, np.full(images, side)], axis=1),
    }


def reference(given: dict[str, Any], n: int, combine: Merging) -> tuple[np.ndarray, list[int]]:
    """Whole masks as sets of pixels, straight from the method's description."""
    height, width = given["sizes"][n]
    ids, owners, total = np.zeros((height, width), int), [], len(given["masks"][n])
    for d in range(given["count"][n]):
        if given["scores"][n, d] < combine.score:
            break
        pixels = set(map(tuple, np.argwhere(paste_mask(given["masks"][n, d], given["boxes"][n, d], height, width)).tolist()))
        free = {p for p in pixels if ids[p] == 0}
        if not pixels or (len(pixels) - len(free)) / len(pixels) > combine.overlap:
            continue
        owners.append(d)
        for p in free:
            ids[p] = len(owners)
    for c in range(1, CLASSES):
        rest = (ids == 0) & (given["semantic"][n, :height, :width] == c)
        if rest.any() and rest.sum() >= combine.stuff_area:
            owners.append(total + c)
            ids[rest] = len(owners)
    return ids, owners


def run(given: dict[str, Any], combine: Merging) -> tuple[Tensor, Tensor, Tensor]:
    tensors = [
        torch.from_numpy(np.ascontiguousarray(given[name])) for name in ("masks", "boxes", "scores", "count", "semantic", "sizes")
    ]
    return merge_panoptic(*tensors, CLASSES, combine.overlap, combine.stuff_area, combine.score)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_plain_reference_and_its_numpy_form(seed: int) -> None:
    combine = [rule(0.5, 30, 0.3), rule(0.0, 0, 0.0), rule(1.0, 200, 0.7)][seed % 3]
    given = case(seed)
    ids, owners, counts = run(given, combine)
    for n, (height, width) in enumerate(given["sizes"]):
        expected, listed = reference(given, n, combine)
        assert (ids[n, :height, :width].numpy() == expected).all()
        assert not ids[n, height:].any() and not ids[n, :, width:].any()
        assert owners[n, : int(counts[n])].tolist() == listed
        assert (owners[n, int(counts[n]) :] == -1).all()
        real = given["count"][n]
        own = [given[name][n, :real] for name in ("masks", "boxes", "scores")]
        found = merged(*own, np.arange(real), given["semantic"][n, :height, :width].astype(np.uint8), combine)
        assert (found.ids_HW == expected).all()
        assert [s.label if s.thing else len(given["masks"][n]) + s.label for s in found.listed] == listed


def square(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2, y2]


def test_overlap_and_area_at_their_limits() -> None:
    """Half of the second square is taken: 0.5 is not more than 0.5. The free ground is 52 pixels."""
    given = case(0, images=1, detections=2, side=10)
    given |= {
        "masks": np.ones((1, 2, 7, 7), np.float32),
        "boxes": np.array([[square(0, 0, 4, 8), square(2, 0, 6, 8)]], np.float32),
        "scores": np.array([[0.9, 0.8]], np.float32),
        "count": np.array([2]),
        "semantic": np.ones((1, 10, 10), np.int64),
        "sizes": np.array([[10, 10]]),
    }
    ids, owners, counts = run(given, rule(0.5, 52, 0.5))
    assert ids[0, :8, :4].unique().tolist() == [1] and ids[0, :8, 4:6].unique().tolist() == [2]
    assert owners[0, : int(counts[0])].tolist() == [0, 1, 2 + 1]
    assert run(given, rule(0.5, 53, 0.5))[1][0, :3].tolist() == [0, 1, -1]
    assert run(given, rule(0.49, 0, 0.5))[1][0, :3].tolist() == [0, 3, -1]
    assert run(given, rule(0.5, 0, 0.85))[1][0, :3].tolist() == [0, 3, -1]


def test_nothing_found_leaves_stuff() -> None:
    given = case(3, images=1, detections=0) | {"count": np.array([0])}
    ids, owners, counts = run(given, rule(0.5, 0, 0.5))
    assert counts.tolist() == [3] and owners.shape == (1, CLASSES)
    assert ((ids[0].numpy() > 0) == (given["semantic"][0] > 0)).all()


def test_a_class_beyond_the_count_is_refused() -> None:
    given = case(0)
    given["semantic"] = given["semantic"] + CLASSES
    with pytest.raises(ValueError, match=r"must hold 0\.\.3"):
        run(given, rule(0.5, 0, 0.5))


def test_fake_shapes_equal_the_real_ones() -> None:
    given, combine = case(1), rule(0.5, 0, 0.5)
    real = run(given, combine)
    with FakeTensorMode() as mode:
        tensors = [
            mode.from_tensor(torch.from_numpy(np.ascontiguousarray(given[n])))
            for n in ("masks", "boxes", "scores", "count", "semantic", "sizes")
        ]
        fake = merge_panoptic(*tensors, CLASSES, combine.overlap, combine.stuff_area, combine.score)
    assert [(f.shape, f.dtype) for f in fake] == [(r.shape, r.dtype) for r in real]
