"""Faults of keypoints: COCO's flat lists of x, y and visibility."""

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter


def posed(label: Record) -> bool:
    """A label with at least one keypoint to be seen."""
    return not label.get("iscrowd") and any(v > 0 for v in (label.get("keypoints") or ())[2::3])


def points_of(label: Record) -> NDArray[np.float64]:
    """[K, 3]."""
    return np.array(label["keypoints"], np.float64).reshape(-1, 3)


def write(label: Record, points_K3: NDArray[np.float64]) -> None:
    """Give the label these keypoints."""
    label["keypoints"] = points_K3.reshape(-1).tolist()
    label["num_keypoints"] = int((points_K3[:, 2] > 0).sum())


def one_seen(draft: Draft, points_K3: NDArray[np.float64]) -> int:
    """A labelled keypoint, drawn at random."""
    return int(draft.rng.choice(np.flatnonzero(points_K3[:, 2] > 0)))


@planter("keypoint-count", "people", "the last one to five keypoints lost, or one to three too many", 4)
def count(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        points_K3 = points_of(label)
        if draft.rng.integers(2):
            kept_K3 = points_K3[: len(points_K3) - int(draft.rng.integers(1, 6))]
            if not (kept_K3[:, 2] > 0).any():
                return None
            write(label, kept_K3)
            return "too few"
        write(label, np.concatenate([points_K3, points_K3[: int(draft.rng.integers(1, 4))]]))
        return "too many"

    return draft.spoil_labels(spoil, posed)


@planter("keypoint-form", "people", "one or two numbers of the list lost", 4)
def form(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        lost = int(draft.rng.integers(1, 3))
        for _ in range(lost):
            del label["keypoints"][int(draft.rng.integers(len(label["keypoints"])))]
        return f"{lost} lost"

    return draft.spoil_labels(spoil, posed)


@planter("keypoint-visibility", "people", "a score, 3, -1 or 100 as visibility; NaN as the place of a labelled keypoint", 4)
def visibility(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        points_K3 = points_of(label)
        kind = str(draft.rng.choice(["a score", "3", "-1", "100", "no place"]))
        place = one_seen(draft, points_K3)
        if kind == "no place":
            points_K3[place, :2] = math.nan
        else:
            points_K3[place, 2] = float(draft.rng.uniform(0.01, 0.99)) if kind == "a score" else float(kind)
        write(label, points_K3)
        return kind

    return draft.spoil_labels(spoil, posed)


@planter("keypoint-outside", "people", "a labelled keypoint 2 px to half a side beyond its picture's border", 4)
def outside(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        points_K3 = points_of(label)
        axis, far = int(draft.rng.integers(2)), bool(draft.rng.integers(2))
        whole = (image["width"], image["height"])[axis]
        beyond = float(math.exp(draft.rng.uniform(math.log(2), math.log(whole / 2))))
        points_K3[one_seen(draft, points_K3), axis] = whole + beyond if far else -beyond
        write(label, points_K3)
        return "right or below" if far else "left or above"

    return draft.spoil_labels(spoil, posed)


@planter("keypoints-all-zero", "people", "all keypoints 0, 0, 0; or with their places left and all visibilities 0", 4)
def all_zero(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        points_K3 = points_of(label)
        kind = str(draft.rng.choice(["all zero", "visibility zero"]))
        points_K3[:, 0 if kind == "all zero" else 2 :] = 0
        write(label, points_K3)
        return kind

    return draft.spoil_labels(spoil, posed)


@planter("keypoint-outside-box", "people", "a keypoint, or all of them, 10 to 150 % of the box's longer side beside the box", 4)
def off_box(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        points_K3, (x, y, w, h) = points_of(label), label["bbox"]
        axis, share = int(draft.rng.integers(2)), float(draft.rng.uniform(0.1, 1.5))
        near, side = ((x, w), (y, h))[axis]
        beyond = share * max(w, h)
        far = bool(draft.rng.integers(2))
        target = near + side + beyond if far else near - beyond
        if draft.rng.integers(2):
            points_K3[one_seen(draft, points_K3), axis] = target
            kind = "one"
        else:
            seen_K = points_K3[:, 2] > 0
            edge = points_K3[seen_K, axis].max() if far else points_K3[seen_K, axis].min()
            points_K3[seen_K, axis] += target - edge
            kind = "all moved"
        write(label, points_K3)
        return f"{kind}, {'10 to 20 %' if share < 0.2 else '20 to 150 %'}"

    return draft.spoil_labels(spoil, posed)


@planter(
    "keypoint-sides-swapped", "people", "left and right of one pair exchanged, 5 % of the box's longer side or more apart", 12
)
def sides_swapped(draft: Draft) -> list[Place]:
    names = draft.info["categories"][0]["keypoints"]
    pairs = [(names.index(name), names.index(name.replace("left", "right"))) for name in names if "left" in name]

    def spoil(label: Record, image: Record) -> str | None:
        points_K3 = points_of(label)
        longer = max(label["bbox"][2:])
        seen = [(a, b) for a, b in pairs if points_K3[a, 2] > 0 and points_K3[b, 2] > 0]
        apart = {(a, b): float(np.hypot(*(points_K3[a, :2] - points_K3[b, :2]))) / longer for a, b in seen}
        clear = [pair for pair in seen if apart[pair] >= 0.05]
        if len(seen) < 4 or not clear:
            return None
        a, b = clear[int(draft.rng.integers(len(clear)))]
        points_K3[[a, b]] = points_K3[[b, a]]
        write(label, points_K3)
        return "5 to 10 % apart" if apart[a, b] < 0.1 else "10 % apart or more"

    return draft.spoil_labels(spoil, posed, most=3)
