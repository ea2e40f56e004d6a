"""Faults of polygons, and of how masks fit their boxes and areas. Polygons are COCO's flat lists of x and y."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks.faults.boxes import plain
from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter


def outlined(label: Record) -> bool:
    """A sound label with polygons."""
    return plain(label) and isinstance(label.get("segmentation"), list) and bool(label["segmentation"])


def pixels(segmentation: Any, image: Record) -> NDArray[np.uint8]:
    """The mask's pixels [H, W], by COCO's rasteriser."""
    height, width = image["height"], image["width"]
    coded = coco.frPyObjects(segmentation, height, width)
    return coco.decode(coco.merge(coded) if isinstance(coded, list) else coded)


def points_of(label: Record) -> list[NDArray[np.float64]]:
    """The polygons as [points, 2]."""
    return [np.array(flat, np.float64).reshape(-1, 2) for flat in label["segmentation"]]


def write(label: Record, polygons: list[NDArray[np.float64]]) -> None:
    """Give the label these polygons."""
    label["segmentation"] = [polygon.reshape(-1).tolist() for polygon in polygons]


@planter("mask-few-points", "coco people", "a polygon left with one or two points: the only one, or one more beside sound ones")
def few_points(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        polygons = points_of(label)
        left = polygons[0][: int(draft.rng.integers(1, 3))]
        alone = bool(draft.rng.integers(2))
        write(label, [left] if alone else [*polygons, left])
        return "the only polygon" if alone else "beside sound ones"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-odd-length", "coco people", "one number of a polygon lost, or one too many")
def odd_length(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        flat = label["segmentation"][int(draft.rng.integers(len(label["segmentation"])))]
        place = int(draft.rng.integers(len(flat)))
        if draft.rng.integers(2):
            del flat[place]
            return "a number lost"
        flat.insert(place, flat[place])
        return "a number too many"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-not-finite", "coco people", "one number of a polygon, or all of them, NaN, infinite or null")
def not_finite(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        flat = label["segmentation"][int(draft.rng.integers(len(label["segmentation"])))]
        kind = str(draft.rng.choice(["NaN", "infinity", "null", "all NaN"]))
        wrong = {"NaN": math.nan, "infinity": math.inf, "null": None, "all NaN": math.nan}[kind]
        for place in range(len(flat)) if kind == "all NaN" else [int(draft.rng.integers(len(flat)))]:
            flat[place] = wrong
        return kind

    return draft.spoil_labels(spoil, outlined)


@planter(
    "mask-empty",
    "coco people",
    "a polygon on one line (upright, level or slanted) or one point repeated; run lengths without a pixel",
)
def empty(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        polygon = points_of(label)[0]
        kind = str(draft.rng.choice(["upright line", "level line", "slanted line", "one point", "run lengths"]))
        if kind == "run lengths":
            label["segmentation"] = {"size": [image["height"], image["width"]], "counts": [image["height"] * image["width"]]}
            return kind
        first, last = polygon.min(axis=0), polygon.max(axis=0)
        along_P = np.round(draft.rng.random(len(polygon)), 3)
        step = {"upright line": [0, 1], "level line": [1, 0], "slanted line": [1, 1], "one point": [0, 0]}[kind]
        write(label, [first + along_P[:, None] * (last - first) * step])
        return kind

    return draft.spoil_labels(spoil, outlined)


@planter("mask-full", "coco", "a mask over 95 to 100 % of its picture, as a polygon or as run lengths")
def full(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        share, w, h = float(draft.rng.uniform(0.95, 1)), image["width"], image["height"]
        dx, dy = (1 - share**0.5) * w / 2, (1 - share**0.5) * h / 2
        label["bbox"] = [dx, dy, w - 2 * dx, h - 2 * dy]
        label["area"] = label["bbox"][2] * label["bbox"][3]
        write(label, [np.array([[dx, dy], [w - dx, dy], [w - dx, h - dy], [dx, h - dy]])])
        if draft.rng.integers(2):
            coded = coco.encode(np.asfortranarray(pixels(label["segmentation"], image)))
            label["segmentation"] = {"size": coded["size"], "counts": coded["counts"].decode()}
        return "95 to 98 %" if share < 0.98 else "98 to 100 %"

    return draft.spoil_labels(spoil, outlined, most=25)


@planter(
    "mask-self-crossing",
    "coco people",
    "points in a wrong order, so that edges cross and 2 % or more of the mask's pixels change",
    4,
)
def self_crossing(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        polygons = points_of(label)
        chosen = max(range(len(polygons)), key=lambda place: len(polygons[place]))
        count = len(polygons[chosen])
        if count < 8:
            return None
        order = np.arange(count)
        how = str(draft.rng.choice(["two points exchanged", "a stretch turned round", "points in any order"]))
        a, b = sorted(draft.rng.choice(count, 2, replace=False).tolist())
        if how == "two points exchanged":
            order[[a, b]] = order[[b, a]]
        elif how == "a stretch turned round":
            order[a : b + 1] = order[a : b + 1][::-1]
        else:
            order = draft.rng.permutation(count)
        before = pixels(label["segmentation"], image)
        polygons[chosen] = polygons[chosen][order]
        wrong = [polygon.reshape(-1).tolist() for polygon in polygons]
        changed = float((before != pixels(wrong, image)).sum() / max(before.sum(), 1))
        if changed < 0.02 or not crossed(polygons[chosen]):
            return None
        label["segmentation"] = wrong
        return f"{how}, " + ("under 10 % of the pixels" if changed < 0.1 else "10 % or more")

    return draft.spoil_labels(spoil, outlined, most=20)


def crossed(points_P2: NDArray[np.float64]) -> bool:
    """Whether two edges cut each other inside, all pairs compared."""
    a_P2, b_P2 = points_P2, np.roll(points_P2, -1, axis=0)

    def side(c_P2: NDArray[np.float64]) -> NDArray[np.float64]:
        along, towards = (b_P2 - a_P2)[:, None], c_P2[None] - a_P2[:, None]
        return np.sign(along[..., 0] * towards[..., 1] - along[..., 1] * towards[..., 0])

    apart_PP = side(a_P2) * side(b_P2) < 0
    return bool((apart_PP & apart_PP.T).any())


@planter(
    "mask-outside",
    "coco people",
    "a mask, and its box, shifted or drawn on a larger copy: 2 px to half a side beyond the picture",
)
def outside(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        polygons, size = points_of(label), np.array([image["width"], image["height"]])
        every = np.concatenate(polygons)
        beyond = float(math.exp(draft.rng.uniform(math.log(2), math.log(size.min() / 2))))
        axis, scaled = int(draft.rng.integers(2)), bool(draft.rng.integers(2))
        if scaled:
            factor = (size[axis] + beyond) / every[:, axis].max()
            polygons = [polygon * factor for polygon in polygons]
        else:
            shift = np.zeros(2)
            shift[axis] = size[axis] + beyond - every[:, axis].max() if draft.rng.integers(2) else -beyond - every[:, axis].min()
            polygons = [polygon + shift for polygon in polygons]
        write(label, polygons)
        low, high = np.concatenate(polygons).min(axis=0), np.concatenate(polygons).max(axis=0)
        label["bbox"] = [*low.tolist(), *(high - low).tolist()]
        return "drawn larger" if scaled else "shifted"

    return draft.spoil_labels(spoil, outlined)


@planter(
    "mask-box-differs",
    "coco people",
    "box or mask moved by 8 to 60 % of a side (4 px or more), or the box 0.3 to 0.9 times as large",
)
def off_box(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        x, y, w, h = label["bbox"]
        axis, share = int(draft.rng.integers(2)), float(draft.rng.uniform(0.08, 0.6))
        side, near, whole = ((w, x, image["width"]), (h, y, image["height"]))[axis]
        step = share * side
        if near > whole - near - side:
            step = -step  # towards the roomier side
        kind = str(draft.rng.choice(["box moved", "mask moved", "box too small"]))
        if abs(step) < 4 or not 0 <= near + step <= whole - side:
            return None
        if kind == "mask moved":
            write(label, [polygon + np.array([step, 0] if axis == 0 else [0, step]) for polygon in points_of(label)])
        elif kind == "box moved":
            label["bbox"][axis] += step
        else:
            factor = float(draft.rng.uniform(0.3, 0.9))
            if (1 - factor) * min(w, h) < 8:
                return None
            label["bbox"] = [x + w * (1 - factor) / 2, y + h * (1 - factor) / 2, w * factor, h * factor]
        return kind if kind == "box too small" or share > 0.15 else f"{kind} by 8 to 15 %"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-area-differs", "coco people", "the box's area stored, or an area of another scale: 1.3 to 20 times off")
def mask_area(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        box, true = label["bbox"][2] * label["bbox"][3], label["area"]
        if draft.rng.integers(2):
            if box < 1.3 * true:
                return None
            label["area"] = box
            return f"the box's area, {'1.3 to 1.5' if box < 1.5 * true else '1.5 and more'} times the mask's"
        factor = float(math.exp(draft.rng.uniform(math.log(1.3), math.log(20))))
        large = bool(draft.rng.integers(2))
        label["area"] = true * factor if large else true / factor
        return f"{'1.3 to 1.5' if factor < 1.5 else '1.5 and more'} times too {'large' if large else 'small'}"

    return draft.spoil_labels(spoil, lambda label: outlined(label) and label.get("area", 0) > 0)


@planter(
    "mask-hole", "coco people", "a hole drawn as a further polygon within the first, 0.2 to 0.9 times as wide as the room there"
)
def hole(draft: Draft) -> list[Place]:
    import cv2

    def spoil(label: Record, image: Record) -> str | None:
        biggest = max(label["segmentation"], key=lambda flat: float(pixels([flat], image).sum()))
        room_HW = cv2.distanceTransform(np.pad(pixels([biggest], image), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(room_HW.argmax()), room_HW.shape)
        radius = float(draft.rng.uniform(0.2, 0.9)) * (float(room_HW.max()) - 1)
        if radius < 2:
            return None
        turn_P = np.linspace(0, 2 * np.pi, int(draft.rng.integers(5, 30)), endpoint=False)
        ring_P2 = np.stack([x + 0.5 + radius * np.cos(turn_P), y + 0.5 + radius * np.sin(turn_P)], axis=1)
        flat = ring_P2.reshape(-1).tolist()
        before = bool(draft.rng.integers(2))
        label["segmentation"] = [flat, *label["segmentation"]] if before else [*label["segmentation"], flat]
        return "listed before" if before else "listed behind"

    return draft.spoil_labels(spoil, outlined)


@planter("mask-fragments", "coco people", "a mask as 15 to 120 crumbs of 2 to 4 px")
def fragments(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        wanted = int(draft.rng.integers(15, 121))
        y_P, x_P = np.nonzero(pixels(label["segmentation"], image)[::5, ::5])
        if len(y_P) < wanted:
            return None
        crumbs = []
        for place in draft.rng.choice(len(y_P), wanted, replace=False).tolist():
            x, y, side = 5 * x_P[place], 5 * y_P[place], int(draft.rng.integers(2, 5))
            crumbs.append(np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float64))
        write(label, crumbs)
        return "15 to 20 pieces" if wanted <= 20 else "21 to 120 pieces"

    return draft.spoil_labels(spoil, outlined)
