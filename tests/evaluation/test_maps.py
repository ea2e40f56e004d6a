"""Figures of semantic and panoptic maps against brute force over pixels, on random maps and on COCO's panoptic sample."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.annotations import ImageTable
from pipeline.data.maps import Segments, SplitMaps
from pipeline.evaluation.found import Predictions, SegmentMap
from pipeline.evaluation.map_pictures import MapRating, rate_maps, worst_and_best_maps
from pipeline.evaluation.panoptic import measure_panoptic
from pipeline.evaluation.semantic import measure_semantic
from pipeline.evaluation.tasks import evaluate_all
from pipeline.evaluation.truth import Truth
from pipeline.predict.map_files import decode_segments, encode_classes, encode_segments

NAMES = ("things", "sky", "road", "water")
CATEGORIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 7, "name": "dog", "isthing": 1}] + [
    {"id": 10 + k, "name": name, "isthing": 0} for k, name in enumerate(NAMES[1:])
]
SAMPLE = Path(__file__).resolve().parents[3] / "shared/data/panopticapi_sample/sample_data"


def truth_of(
    folder: Path,
    semantic: list[np.ndarray],
    segments: list[tuple[np.ndarray, dict[int, tuple[int, bool]]]],
    categories: list[dict[str, Any]] = CATEGORIES,
) -> Truth:
    """A truth with maps on disk: per picture its classes, its segment numbers, and (category, crowd) of each number."""
    rows = []
    for row, (classes, (ids, owners)) in enumerate(zip(semantic, segments, strict=True)):
        for kind, data in (("semantic", encode_classes(classes)), ("panoptic", encode_segments(ids))):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{row}.png").write_bytes(data)
        for number, (category, crowd) in owners.items():
            rows.append((row, number, category, 0, crowd, int((ids == number).sum()), [0, 0, 1, 1]))
    count, names = len(semantic), [f"{row}.png" for row in range(len(semantic))]
    sides = np.array([classes.shape for classes in semantic], np.int32)
    images = ImageTable(np.arange(count) + 5, names, sides[:, 1], sides[:, 0], {})
    maps = SplitMaps(names, folder / "semantic", NAMES, folder / "panoptic", Segments.of(rows), categories)
    none = np.zeros(0, np.int64)
    known = np.array([3, 7])
    return Truth(
        images.ids_I, none, none, np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool), known, ("cat", "dog"),
        tasks=("semantic", "panoptic"), images=images, maps=maps,
    )  # fmt: skip


def found_of(semantic: list[np.ndarray], segments: list[tuple[np.ndarray, list[int]]]) -> Predictions:
    return Predictions(
        np.zeros(0, np.int64),
        np.zeros((0, 4)),
        np.zeros(0),
        np.zeros(0, np.int64),
        semantic={5 + row: encode_classes(classes) for row, classes in enumerate(semantic)},
        panoptic={5 + row: SegmentMap(encode_segments(ids), tuple(owners)) for row, (ids, owners) in enumerate(segments)},
    )


def plain_semantic(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The definitions, over lists of pixels."""
    wanted = np.concatenate([w[w != 255] for w, _ in pairs])
    found = np.concatenate([f[w != 255] for w, f in pairs])
    iou, share, weights = [], [], []
    for k in range(len(NAMES)):
        both, either = ((wanted == k) & (found == k)).sum(), ((wanted == k) | (found == k)).sum()
        if either:
            iou.append(both / either)
            weights.append((wanted == k).mean())
        if (wanted == k).any():
            share.append(both / (wanted == k).sum())
    return {
        "semantic/mIoU": np.mean(iou),
        "semantic/fwIoU": np.dot(iou, weights),
        "semantic/mACC": np.mean(share),
        "semantic/pACC": (wanted == found).mean(),
    }


@pytest.mark.parametrize("seed", range(5))
def test_semantic_figures_equal_their_definitions(tmp_path: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    wanted = [chance.choice([0, 1, 2, 255], (9, 8 + n)).astype(np.uint8) for n in range(3)]
    found = [np.where(chance.random(w.shape) < 0.6, np.minimum(w, 2), chance.integers(0, 3 + seed % 2, w.shape)) for w in wanted]
    found = [f.astype(np.uint8) for f in found]
    blank = [(np.ones(w.shape, int), {1: (10, False)}) for w in wanted]
    truth = truth_of(tmp_path, wanted, blank)
    metrics = measure_semantic(truth, found_of(found, [(ids, [10]) for ids, _ in blank]), "hotcoco", 100)
    expected = plain_semantic(list(zip(wanted, found, strict=True)))
    assert metrics.numbers == pytest.approx(expected, abs=1e-12)
    assert metrics.value == metrics.numbers["semantic/mIoU"] and metrics.flat()["semantic/mIoU/sky"] == metrics.per_class["sky"]
    assert "water" not in metrics.per_class and len(metrics.tables()) == 2
    ratings = rate_maps(truth, found_of(found, []))
    for rating, w, f in zip(ratings, wanted, found, strict=True):
        assert rating.right == pytest.approx((w == f)[w != 255].mean())


def plain_panoptic(
    pairs: list[tuple[np.ndarray, dict[int, tuple[int, bool]], np.ndarray, dict[int, int]]],
) -> dict[int, tuple[float, int, int, int]]:
    """Per category: sum of IoU, matched, false, missed; by the paper's definition and panopticapi's rule for void and crowds."""
    total: dict[int, list[float]] = {category["id"]: [0.0, 0, 0, 0] for category in CATEGORIES}
    for wanted, owners, found, labels in pairs:
        void, matched_w, matched_f = ~np.isin(wanted, list(owners)), set(), set()
        for w, (category, crowd) in owners.items():
            for f, label in labels.items():
                if crowd or label != category:
                    continue
                a, b = wanted == w, found == f
                iou = (a & b).sum() / (a | (b & ~void)).sum()
                if iou > 0.5:
                    matched_w.add(w)
                    matched_f.add(f)
                    total[category][0] += iou
                    total[category][1] += 1
        for w, (category, crowd) in owners.items():
            total[category][3] += w not in matched_w and not crowd
        for f, label in labels.items():
            if f in matched_f:
                continue
            crowds = [w for w, (category, crowd) in owners.items() if crowd and category == label][-1:]  # COCO has one a class
            excused = (void | np.isin(wanted, crowds))[found == f].mean()
            total[label][2] += excused <= 0.5
    return {category: (v[0], int(v[1]), int(v[2]), int(v[3])) for category, v in total.items()}


def quality(counts: tuple[float, int, int, int]) -> tuple[float, float, float] | None:
    iou, tp, fp, fn = counts
    return (iou / (tp + fp / 2 + fn / 2), iou / max(tp, 1), tp / (tp + fp / 2 + fn / 2)) if tp + fp + fn else None


def random_case(seed: int) -> tuple[list[Any], list[Any]]:
    """Blocks of segments, some of them void or crowds, and found ones that are partly the same."""
    chance = np.random.default_rng(seed)
    truths, founds = [], []
    for _ in range(3):
        grid = np.arange(1, 10).reshape(3, 3)
        wanted = grid.repeat(6, 0).repeat(6, 1)
        owners = {n: (int(chance.choice([3, 7, 10, 11])), bool(chance.random() < 0.15)) for n in range(1, 9)}
        found = np.roll(wanted, chance.integers(-2, 3, 2), (0, 1)) % 9
        labels = {n: owners[n][0] if chance.random() < 0.8 else 7 for n in range(1, 9) if (found == n).any()}
        truths.append((np.where(wanted == 9, 0, wanted), owners))
        founds.append((found, labels))
    return truths, founds


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_figures_equal_their_definitions(tmp_path: Path, seed: int) -> None:
    truths, founds = random_case(seed)
    blank = [np.zeros(ids.shape, np.uint8) for ids, _ in truths]
    listed = [(ids, [labels[n] for n in range(1, 9)]) for ids, labels in founds]
    metrics = measure_panoptic(truth_of(tmp_path, blank, truths), found_of(blank, listed), "hotcoco", 100)
    counts = plain_panoptic([(w, o, f, labels) for (w, o), (f, labels) in zip(truths, founds, strict=True)])
    by_class = {category: quality(one) for category, one in counts.items()}
    for end, kinds in (("", (0, 1)), ("_things", (1,)), ("_stuff", (0,))):
        own = [by_class[c["id"]] for c in CATEGORIES if c["isthing"] in kinds and by_class[c["id"]] is not None]
        expected = np.mean(own, axis=0)
        found = [metrics.numbers[f"panoptic/{name}{end}"] for name in ("PQ", "SQ", "RQ")]
        np.testing.assert_allclose(found, expected, atol=1e-12)
    for one, category in zip(metrics.classes, CATEGORIES, strict=True):
        expected_class = by_class[category["id"]]
        assert (one.pq, one.sq, one.rq) == pytest.approx(expected_class if expected_class else (-1, -1, -1), abs=1e-12)
    assert len(metrics.tables()) == 2 and metrics.value == metrics.numbers["panoptic/PQ"]
    assert metrics.per_class.keys() <= {category["name"] for category in CATEGORIES}


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no panopticapi sample at {SAMPLE}")
@pytest.mark.parametrize("change", [lambda ids: ids, lambda ids: np.roll(ids, 25, axis=1)], ids=["itself", "moved"])
def test_cocos_own_sample(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """The real files of COCO's panoptic format: found as they are, PQ is 1; moved by 25 pixels, what brute force says."""
    content = json.loads((SAMPLE / "panoptic_examples.json").read_bytes())
    used = {info["category_id"] for picture in content["annotations"] for info in picture["segments_info"]}
    categories = [category for category in content["categories"] if category["id"] in used]
    truths, founds, pairs = [], [], []
    for picture in content["annotations"]:
        raw = decode_segments(SAMPLE / "panoptic_examples" / picture["file_name"])
        infos = picture["segments_info"]
        ids = np.zeros(raw.shape, int)
        for number, info in enumerate(infos, 1):
            assert (raw == info["id"]).sum() == info["area"]
            ids[raw == info["id"]] = number
        owners = {number: (info["category_id"], bool(info["iscrowd"])) for number, info in enumerate(infos, 1)}
        truths.append((ids, owners))
        founds.append((change(ids), [info["category_id"] for info in infos]))
        pairs.append((ids, owners, change(ids), dict(enumerate(founds[-1][1], 1))))
    blank = [np.zeros(ids.shape, np.uint8) for ids, _ in truths]
    metrics = measure_panoptic(truth_of(tmp_path, blank, truths, categories), found_of(blank, founds), "hotcoco", 100)
    known, CATEGORIES[:] = CATEGORIES[:], categories
    try:
        counts = plain_panoptic(pairs)
    finally:
        CATEGORIES[:] = known
    values = [q for q in map(quality, counts.values()) if q is not None]
    assert metrics.value == pytest.approx(np.mean([pq for pq, _, _ in values]), abs=1e-12)
    assert (metrics.value == 1) == (change(np.eye(2))[0, 0] == 1 and change(np.arange(60).reshape(1, 60))[0, 0] == 0)


def test_every_task_of_maps_is_measured_and_nothing_to_measure_is_undefined(tmp_path: Path) -> None:
    ids, classes = np.zeros((4, 4), int), np.full((4, 4), 255, np.uint8)
    truth = truth_of(tmp_path, [classes], [(ids, {})])
    found = evaluate_all(truth, found_of([np.zeros((4, 4), np.uint8)], [(ids, [])]), "hotcoco")
    assert list(found) == ["semantic", "panoptic"] and [metrics.value for metrics in found.values()] == [-1, -1]
    assert all(not metrics.flat() for metrics in found.values())


def test_predictions_keep_their_maps_when_rows_are_taken_and_joined() -> None:
    one, two = found_of([np.zeros((2, 2), np.uint8)], []), found_of([np.ones((2, 2), np.uint8)], [])
    two.semantic = {9: two.semantic[5]} if two.semantic else None
    joined = Predictions.joined([one, two])
    assert joined.semantic is not None and list(joined.semantic) == [5, 9]
    assert joined.of(9).semantic == joined.semantic


def test_worst_and_best_maps_share_no_picture() -> None:
    ratings = [MapRating(row, right) for row, right in enumerate([0.5, 0.9, 0.1])]
    worst, best = worst_and_best_maps(ratings, 4)
    assert [rating.row for rating in worst] == [2, 0] and [rating.row for rating in best] == [1]
