"""Every check of masks: a planted fault is found at its place, its clean twin is not; and what the fixes make of it."""

import json
from fractions import Fraction
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from pipeline.data.dataset import open_dataset, write_dataset
from pipeline.data.maps import SplitMaps
from pipeline.labels.check import Severity
from pipeline.labels.checks import CHECKS
from pipeline.labels.columns import Columns
from pipeline.labels.fixes import applies
from pipeline.labels.pictures import inspect
from pipeline.labels.validation import validate
from tests.labels.planted import Planted, settings

SQUARE = (10, 10, 50, 10, 50, 40, 10, 40)
BOW_TIE = (10, 10, 50, 40, 50, 10, 10, 40)
INNER = (20, 20, 30, 20, 30, 30, 20, 30)
BESIDE = (60, 10, 70, 10, 70, 40, 60, 40)
LONG = tuple(value for turn in np.linspace(0, 6.2, 200) for value in (50 + 30 * np.cos(turn), 40 + 30 * np.sin(turn)))
LONG_CROSSED = (*LONG[:100], *LONG[198:200], *LONG[102:198], *LONG[100:102], *LONG[200:])  # two far points exchanged

SLANTED = tuple(value for step in (0, 0.13, 0.37, 1, 0.71, 0.2) for value in (10.1 + 41.3 * step, 10.2 + 23.9 * step))
NOTCHED = (10, 10, 20, 10, 27, 4, 27, 10, 20, 5, 30, 10, 50, 10, 50, 40, 10, 40)
NOTCHED_TIE = (10, 10, 20, 10, 27, 4, 27, 10, 20, 5, 30, 10, 50, 40, 50, 10, 10, 40)


def runs(y1: int, x1: int, y2: int, x2: int, height: int = 80, width: int = 100) -> dict[str, Any]:
    """A rectangle in run lengths, by the reference implementation."""
    pixels = np.zeros((height, width), np.uint8, order="F")
    pixels[y1:y2, x1:x2] = 1
    coded = coco.encode(pixels)
    return {"size": [height, width], "counts": coded["counts"].decode()}


def coded(mask_HW: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask."""
    found = coco.encode(np.asfortranarray(mask_HW, np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def dotted(count: int, inside: bool) -> dict[str, Any]:
    """Run lengths of `count` dots, or of a rectangle with so many holes."""
    mask_HW = np.zeros((80, 100), np.uint8)
    mask_HW[5:35, 5:65] = not inside
    place = np.arange(count)
    mask_HW[8 + 4 * (place % 3), 8 + 4 * (place // 3)] = inside
    return coded(mask_HW)


def plain(y1: int, x1: int, y2: int, x2: int) -> list[int]:
    """The same, 80 x 100 pixels, as a list."""
    ends = [end for x in range(x1, x2) for end in (80 * x + y1, 80 * x + y2)]
    return np.diff([0, *ends, 8000]).tolist()


POLYGONS: list[tuple[str, dict, dict]] = [
    ("mask-few-points", {"polygons": [SQUARE, (10, 10, 20, 20)]}, {"polygons": [SQUARE, (60, 10, 70, 10, 70, 20)], "area": 1250}),
    ("mask-few-points", {"polygons": [(10, 10)]}, {"polygons": [SQUARE]}),
    ("mask-odd-length", {"extra": {"segmentation": [[*SQUARE, 7.0]]}}, {"polygons": [SQUARE]}),
    ("mask-not-finite", {"polygons": [(10, 10, nan, 10, 50, 40)]}, {"polygons": [SQUARE]}),
    ("mask-not-finite", {"polygons": [SQUARE, (10, 10, inf, 10, 50, 40)]}, {"polygons": [SQUARE]}),
    ("mask-empty", {"polygons": [(10, 10, 30, 25, 50, 40)], "area": 0}, {"polygons": [(10, 10, 30, 26, 50, 40)], "area": 20}),
    ("mask-empty", {"polygons": [(10, 10, 50, 10, 50, 40, 50, 10)]}, {"polygons": [BOW_TIE]}),  # there and back; two halves
    ("mask-empty", {"polygons": [SLANTED], "area": 0}, {"polygons": [(10.1, 10.2, 40.3, 30.7, 40.3, 30.71)], "area": 0.15}),
    ("mask-empty", {"rle": runs(0, 0, 0, 0)}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-self-crossing", {"polygons": [BOW_TIE], "area": 600}, {"polygons": [SQUARE]}),
    ("mask-self-crossing", {"polygons": [LONG_CROSSED]}, {"polygons": [LONG]}),
    # The first crossing cuts off 3 %, which alone is a slip of the hand; the one behind it a half.
    ("mask-self-crossing", {"polygons": [NOTCHED_TIE], "area": 600}, {"polygons": [NOTCHED], "area": 1200}),
    ("mask-outside", {"polygons": [(10, 10, 50, 10, 50, 90, 10, 90)]}, {"polygons": [(10, 10, 50, 10, 50, 81, 10, 81)]}),
    ("mask-outside", {"polygons": [(-5, 10, 50, 10, 50, 40)]}, {"polygons": [(-1, 10, 50, 10, 50, 40)]}),
    ("mask-box-differs", {"polygons": [SQUARE], "box": (10, 10, 60, 40)}, {"polygons": [SQUARE], "box": (10, 10, 52, 38)}),
    ("mask-box-differs", {"rle": runs(10, 10, 40, 50), "box": (10, 15, 50, 40)}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-area-differs", {"polygons": [SQUARE], "area": 1700}, {"polygons": [SQUARE], "area": 1300}),
    ("mask-area-differs", {"rle": runs(10, 10, 40, 50), "area": 800}, {"rle": runs(10, 10, 40, 50), "area": 1200}),
    # Parts over each other count once: 1200 pixels, not 2400.
    ("mask-area-differs", {"polygons": [SQUARE, SQUARE], "area": 4000}, {"polygons": [SQUARE, SQUARE], "area": 1200}),
    ("mask-hole", {"polygons": [SQUARE, INNER]}, {"polygons": [SQUARE, BESIDE], "area": 1500}),
    ("mask-hole", {"polygons": [INNER, SQUARE], "area": 1200}, {"polygons": [INNER, BESIDE], "area": 400}),
    ("mask-fragments", {"polygons": [(3 * k, 5, 3 * k + 2, 5, 3 * k, 7) for k in range(21)], "area": 42}, {"polygons": [SQUARE]}),
    ("mask-fragments", {"rle": dotted(21, inside=True)}, {"rle": dotted(20, inside=True), "box": (8, 8, 33, 17), "area": 20}),
    ("mask-pinholes", {"rle": dotted(21, inside=False)}, {"rle": dotted(20, inside=False), "box": (5, 5, 65, 35), "area": 1780}),
    ("mask-rle-sum", {"rle": {"size": [80, 100], "counts": [100, 20, 7879]}}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-rle-sum", {"rle": {"size": [80, 100], "counts": runs(10, 10, 40, 50)["counts"][:-1]}}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-rle-sum", {"rle": {"size": [80, 100], "counts": [100, -20, 7920]}}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-rle-sum", {"rle": {"size": [80, 100], "counts": "\x01\x7f"}}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-rle-sum", {"rle": {"size": [80], "counts": [8000]}}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-rle-sum", {"rle": {"counts": None}}, {"rle": {"size": [80, 100], "counts": plain(10, 10, 40, 50)}}),
    ("mask-rle-size", {"rle": runs(10, 10, 40, 50, 160, 200)}, {"rle": runs(10, 10, 40, 50)}),
    ("mask-crowd-polygon", {"polygons": [SQUARE], "crowd": True}, {"rle": runs(10, 10, 40, 50), "crowd": True}),
]  # fmt: skip


def plant(planted: Planted, picture: str, what: dict) -> int:
    flat = np.array([value for polygon in what.get("polygons", [SQUARE]) for value in polygon], np.float64)
    flat = np.where(np.isfinite(flat), flat, 30).reshape(-1, 2)
    box = (*flat.min(axis=0).tolist(), *flat.max(axis=0).tolist())
    default = {"box": box, "category": 3, "area": 1200 if "polygons" not in what else sum_of_areas(what["polygons"])}
    return planted.box("train", picture, **(default | what))


def sum_of_areas(polygons: list) -> float:
    found = 0.0
    for flat in polygons:
        x, y = np.where(np.isfinite(flat), flat, 0).reshape(-1, 2).astype(float).T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        found += area if np.isfinite(area) else 0.0
    return found


@pytest.mark.parametrize(("code", "faulty", "clean"), POLYGONS)
def test_fault_is_found_and_its_clean_twin_is_not(planted: Planted, code: str, faulty: dict, clean: dict) -> None:
    plant(planted, "a.png", clean)
    wanted = plant(planted, "b.png", faulty)
    found = planted.found(code)
    assert [(f.split, f.image, f.annotation) for f in found] == [("train", "b.png", wanted)]


CLEAN = [clean for _, _, clean in POLYGONS if not clean.get("crowd") and clean.get("polygons") != [BOW_TIE]]


@pytest.mark.parametrize("clean", CLEAN)
def test_clean_masks_are_quiet_in_every_check_of_masks(planted: Planted, clean: dict) -> None:
    if len(clean.get("polygons", [])) == 2 and clean["polygons"][0] == clean["polygons"][1]:
        clean = clean | {"polygons": clean["polygons"][:1]}  # doubled on purpose there
    plant(planted, "a.png", clean)
    codes = [code for code in CHECKS if code.startswith("mask-") and code not in ("mask-missing", "mask-outside")]
    assert [(f.code, f.reason) for f in planted.found_by(codes)] == []


def test_full_mask(planted: Planted) -> None:
    planted.mask("train", "a.png", (0, 0, 97, 0, 97, 80, 0, 80))
    wanted = planted.mask("train", "b.png", (0, 0, 99, 0, 99, 80, 0, 80))
    (found,) = planted.found("mask-full")
    assert (found.annotation, found.reason) == (wanted, "its mask covers 99.0% of the picture")


def test_label_without_mask_among_masks_only(planted: Planted) -> None:
    assert not planted.found("mask-missing")  # none has one
    for _ in range(7):
        planted.mask("train", "a.png", SQUARE)
    found = planted.found("mask-missing")
    assert [(f.split, f.annotation) for f in found] == [("train", k) for k in (1, 2, 3, 4)] + [("val", 1), ("val", 2)]


def test_packed_and_plain_runs_are_measured_as_pycocotools_does(planted: Planted) -> None:
    rng = np.random.default_rng(7)
    pixels = [np.asfortranarray((rng.random((80, 100)) < share).astype(np.uint8)) for share in (0.001, 0.3, 0.9, 1.0)]
    for one in pixels:
        coded = coco.encode(one)
        planted.box("train", "a.png", (0, 0, 1, 1), 3, rle={"size": [80, 100], "counts": coded["counts"].decode()})
        flat = one.reshape(-1, order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *([0] if flat[0] else []), *edges.tolist(), 8000]).tolist()
        planted.box("train", "b.png", (0, 0, 1, 1), 3, rle={"size": [80, 100], "counts": counts})
    table = planted.columns().masks
    assert not table.fault_A
    coded_rows = np.flatnonzero(table.coded_A)
    wanted = [(float(one.sum()), *coco.toBbox(coco.encode(one)).tolist()) for one in pixels] * 2
    for row, (area, x, y, w, h) in zip(coded_rows, wanted, strict=True):
        assert table.area_A[row] == area and table.boxes_A4[row].tolist() == [x, y, x + w, y + h]


@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.7, 0.98])
def test_pieces_and_holes_are_those_of_scipy(density: float) -> None:
    """Pieces touch at corners too, the gaps between them do not; a gap at the border is no hole."""
    from pipeline.labels.runs import measure_pieces

    rng = np.random.default_rng(int(100 * density))
    for _ in range(60):
        height, width = rng.integers(1, 12, 2).tolist()
        mask_HW = rng.random((height, width)) < density
        flat = np.concatenate([[0], mask_HW.reshape(-1, order="F").astype(np.int64), [2]])
        runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))]))
        for place in rng.integers(0, len(runs), 2).tolist():  # a run of no pixels parts nothing
            if runs[place] > 1:
                runs = np.concatenate([runs[:place], [1, 0, runs[place] - 1], runs[place + 1 :]])
        starts, sound = np.array([0, 0, len(runs)]), np.ones(2, np.bool_)
        pieces, holes = measure_pieces(runs, starts, np.full(2, height), np.full(2, width), sound)
        gaps_HW, gaps = ndimage.label(~mask_HW)
        edge = np.concatenate([gaps_HW[0], gaps_HW[-1], gaps_HW[:, 0], gaps_HW[:, -1]])
        assert pieces[1] == ndimage.label(mask_HW, np.ones((3, 3)))[1]
        assert holes[1] == gaps - len(set(edge.tolist()) - {0})


def test_masks_over_each_other_are_a_fault_of_panoptic_data_only(planted: Planted, tmp_path: Path) -> None:
    first = planted.mask("train", "a.png", SQUARE)
    inside = planted.mask("train", "a.png", INNER)
    planted.mask("train", "a.png", BESIDE)
    planted.mask("train", "a.png", (30, 10, 50, 10, 50, 70, 30, 70))  # 600 of 1200 pixels: half
    runs_over = planted.box("train", "b.png", (10, 10, 50, 40), 3, rle=runs(10, 10, 40, 50))
    planted.box("train", "b.png", (10, 10, 50, 40), 3, rle=runs(10, 10, 40, 50), crowd=True)
    again = planted.mask("train", "b.png", SQUARE)
    assert not planted.found("mask-overlap")
    dataset = planted.dataset()
    for split in dataset.splits.values():
        split.maps = SplitMaps([], None, (), tmp_path, None, [])
    check = CHECKS["mask-overlap"](Severity.INFO, settings().limits)
    data = Columns(dataset, inspect(dataset, 10**8))
    assert [(f.image, f.annotation, f.reason) for f in data.listed(check.find(data))] == [
        ("a.png", inside, f"shares 100% of the smaller with annotation {first}"),
        ("b.png", again, f"shares 100% of the smaller with annotation {runs_over}"),
    ]


# -- fixes --


def mended(planted: Planted, identity: int, mode: str = "all", **severity: str) -> tuple[list, dict | None, Any]:
    """Polygons, run lengths and the whole row of one label after the fixes."""
    result = validate(planted.dataset(), settings(mode, **({"box_near_duplicate": "ignore"} | severity)))
    rows = result.mended.split("train").annotations
    row = rows.ids_A.tolist().index(identity)
    return [p.reshape(-1).tolist() for p in rows.polygons.polygons_of(row)], rows.rle.get(row), rows.take([row])


def test_unusable_parts_go_and_the_rest_stays(planted: Planted) -> None:
    both = plant(planted, "a.png", {"polygons": [SQUARE, (10, 10, 20, 20), (10, 10, nan, 10, 20, 20)]})
    odd = plant(planted, "b.png", {"extra": {"segmentation": [[1.0, 2.0, 3.0], list(map(float, SQUARE))], "note": 1}})
    nothing = plant(planted, "b.png", {"polygons": [(20, 10, 20, 20)], "box": (20, 10, 60, 20)})
    assert mended(planted, both, "safe")[0] == [list(SQUARE)]
    polygons, _, row = mended(planted, odd, "safe")
    assert polygons == [list(SQUARE)] and row.extra == {0: {"note": 1}}
    polygons, _, row = mended(planted, nothing, "safe")
    assert polygons == [] and row.boxes_A4.tolist() == [[20, 10, 60, 20]]


def test_a_polygon_beyond_the_picture_is_cut_exactly_and_its_area_follows(planted: Planted) -> None:
    triangle = (60, 10, 150, 10, 60, 70)
    one = planted.mask("train", "a.png", triangle)
    polygons, _, row = mended(planted, one, "safe")
    drawn = [coco.decode(coco.merge(coco.frPyObjects(p, 80, 100))) for p in ([list(triangle)], polygons)]
    np.testing.assert_array_equal(*drawn)
    assert row.boxes_A4.tolist() == [[60, 10, 100, 70]]
    assert row.area_A[0] == pytest.approx(90 * 60 / 2 - 50 * (100 / 3) / 2)


def test_a_bow_tie_becomes_its_rectangle(planted: Planted) -> None:
    one = plant(planted, "a.png", {"polygons": [BOW_TIE], "area": 600})
    polygons, _, row = mended(planted, one)
    assert set(zip(polygons[0][::2], polygons[0][1::2], strict=True)) == {(10, 10), (50, 10), (50, 40), (10, 40)}
    assert row.area_A.tolist() == [1200]
    assert not [c for c in validate(planted.dataset(), settings("safe")).changes if c.annotation == one]


@pytest.mark.parametrize("seed", range(20))
def test_any_tangle_is_uncrossed_with_the_same_points(planted: Planted, seed: int) -> None:
    from pipeline.labels.outlines import first_crossing, uncrossed

    points = np.random.default_rng(seed).random((5 + 4 * seed, 2)) * 100
    found = uncrossed(points)
    assert first_crossing(found, -1.0)[0] == -1
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(points, axis=0))


def crossings(points: np.ndarray) -> list[float]:
    """Brute force over all pairs of edges that are not neighbours, in exact fractions: the smaller loop's share of both."""
    count = len(points)
    edges = [(tuple(map(int, points[k])), tuple(map(int, points[(k + 1) % count]))) for k in range(count)]

    def turn(a, b, c) -> int:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    def twice(outline) -> Fraction:
        return sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(outline, [*outline[1:], outline[0]], strict=True))

    shares = []
    for i in range(count):
        for j in range(i + 2, count - (i == 0)):
            (a, b), (c, d) = edges[i], edges[j]
            if turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0:
                along = Fraction(turn(c, d, a), turn(c, d, a) - turn(c, d, b))
                cut = tuple(p + along * (q - p) for p, q in zip(a, b, strict=True))
                loops = [abs(twice([cut, *(edges[k][1] for k in range(i, j))]))]
                loops.append(abs(twice([cut, *(edges[k % count][1] for k in range(j, count + i))])))
                shares.append(float(min(loops) / sum(loops)) if sum(loops) else 0.0)
    return shares


def test_crossings_are_those_of_brute_force() -> None:
    from pipeline.labels.outlines import first_crossing, greatest_loop

    rng = np.random.default_rng(3)
    answers = []
    for number in range(400):
        count = int(rng.integers(3, 9)) if number % 10 else 80
        points = rng.integers(0, 12 if count < 80 else 4000, (count, 2)).astype(float)
        if number % 2:  # by angle around the middle: mostly simple
            points = points[np.argsort(np.arctan2(*(points - points.mean(axis=0) - 0.01).T))]
        shares = crossings(points)
        answers.append(bool(shares))
        assert (first_crossing(points, -1.0)[0] >= 0) == answers[-1]
        above = [share for share in shares if share > 0.02]
        assert greatest_loop(points, 0.02) == pytest.approx(max(above, default=0), rel=1e-9)
        assert (first_crossing(points, 0.02)[0] >= 0) == bool(above)
    assert 50 < sum(answers) < 350


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [80, 100], "counts": plain(10, 10, 40, 50)[:-1]},  # the background at the end is missing
        {"size": [80, 100], "counts": [*plain(10, 10, 40, 50)[:-1], 5]},
        {"size": [80, 100], "counts": [*plain(10, 10, 40, 50)[:-1], 9000]},
        {"size": [100, 80], "counts": plain(10, 10, 40, 50)},  # width before height
    ],
)
def test_run_lengths_are_repaired_where_the_box_agrees(planted: Planted, rle: dict) -> None:
    one = plant(planted, "a.png", {"rle": rle})
    _, coded, _ = mended(planted, one, "safe")
    assert coded == {"size": [80, 100], "counts": plain(10, 10, 40, 50)}


@pytest.mark.parametrize(
    ("rle", "box"),
    [
        ({"size": [80, 100], "counts": plain(10, 10, 40, 50)[:-1]}, (10, 10, 90, 40)),
        ({"size": [80, 100], "counts": "\x01"}, (10, 10, 50, 40)),
        ({"size": None, "counts": 3}, (10, 10, 50, 40)),
        (runs(10, 10, 40, 50, 160, 200), (10, 10, 50, 40)),
    ],
)
def test_other_run_lengths_go_and_the_box_stays(planted: Planted, rle: dict, box: tuple) -> None:
    one = plant(planted, "a.png", {"rle": rle, "box": box})
    polygons, coded, row = mended(planted, one, "safe")
    assert coded is None and polygons == [] and row.boxes_A4.tolist() == [list(box)]


def test_a_crowds_polygons_become_run_lengths_of_the_same_pixels(planted: Planted) -> None:
    one = plant(planted, "a.png", {"polygons": [SQUARE, INNER], "crowd": True})
    polygons, coded, _ = mended(planted, one)
    assert polygons == [] and coded is not None
    wanted = coco.merge(coco.frPyObjects([list(SQUARE), list(INNER)], 80, 100))
    assert coded == {"size": [80, 100], "counts": wanted["counts"].decode()}


def test_box_and_area_follow_the_mask_when_all_is_mended(planted: Planted) -> None:
    one = plant(planted, "a.png", {"polygons": [SQUARE], "box": (10, 10, 60, 60), "area": 9000})
    _, _, row = mended(planted, one)
    assert (row.boxes_A4.tolist(), row.area_A.tolist()) == ([[10, 10, 50, 40]], [1200])
    _, _, row = mended(planted, one, "safe")
    assert (row.boxes_A4.tolist(), row.area_A.tolist()) == ([[10, 10, 60, 60]], [9000])


@pytest.mark.parametrize("mode", ["safe", "all"])
def test_mended_masks_hold_nothing_to_mend(planted: Planted, tmp_path: Path, mode: str) -> None:
    for number, (_, faulty, clean) in enumerate(POLYGONS):
        planted.picture("train", f"m{number:02}.png")
        for what in (faulty, clean):
            plant(planted, f"m{number:02}.png", what)
    plant(planted, "a.png", {"polygons": [SQUARE], "box": (nan, nan, nan, nan), "area": nan})
    plant(planted, "b.png", {"polygons": [(-30, -30, 200, -30, 200, 100, 50, -40)], "area": 7})
    plant(planted, "b.png", {"polygons": [tuple((np.random.default_rng(5).random(30) * 160).tolist())], "area": 7})
    first = validate(planted.dataset(), settings(mode, box_near_duplicate="ignore", image_repeated="ignore"))
    fixes = {change.fix for change in first.changes}
    assert fixes >= {"prune", "repair", "crop", "fill"} | ({"uncross", "encode", "box", "area"} if mode == "all" else set())
    out = tmp_path / "validated"
    out.mkdir()
    write_dataset(out, first.mended)
    json.loads(json.dumps([change._asdict() for change in first.changes], allow_nan=False))
    again = validate(open_dataset(out), settings(mode, box_near_duplicate="ignore", image_repeated="ignore"))
    assert again.changes == []
    assert [(one.check.code, one.reasons) for one in again.found if len(one) and applies(one, mode)] == []


def test_a_hostile_mask_costs_no_time_and_breaks_no_other(planted: Planted) -> None:
    rng = np.random.default_rng(1)
    plant(planted, "a.png", {"polygons": [tuple((rng.random(60_000) * 1e9).tolist())]})
    plant(planted, "a.png", {"rle": {"size": [2**40, 2**40], "counts": [2**61, 2**61]}})
    plant(planted, "a.png", {"rle": {"size": ["a", None], "counts": {}}})
    wanted = plant(planted, "b.png", {"polygons": [BOW_TIE], "area": 600})
    assert wanted in [f.annotation for f in planted.found("mask-self-crossing")]
    assert len(planted.found("mask-rle-sum")) == 2
    result = validate(planted.dataset(), settings("safe"))
    assert validate(result.mended, settings("safe")).changes == []
