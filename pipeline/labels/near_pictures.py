"""Checks of pictures that show nearly the same: frames of a video, a burst, a copy that was scaled or compressed anew."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.perceptual import near_pairs
from pipeline.labels.check import Check
from pipeline.labels.columns import Columns, Findings


class NearLeak(Check):
    """Nearly the same picture in two splits: what was learnt by heart is then measured. Split by groups of pictures instead."""

    code = "image-near-leaked"

    def find(self, data: Columns) -> Findings:
        return _near(self, data, across=True)


class NearRepeat(Check):
    """Nearly the same picture twice in one split, as in a video: it counts double, and teaches little more."""

    code = "image-near-repeated"

    def find(self, data: Columns) -> Findings:
        return _near(self, data, across=False)


def near_pictures(data: Columns, bits: int, flat: float) -> NDArray[np.int64]:
    """Pairs of rows [P, 2], first < second, whose hashes, or one's and the other's mirror image's, differ in `bits` at most.

    Files with equal bytes, and pictures of a contrast below `flat`, whose hash is noise, are left out.
    """
    rows = np.array([row for row, look in enumerate(data.looks) if look is not None and look.contrast >= flat], np.int64)
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    looks = [data.looks[row] for row in rows.tolist()]
    hashes = [np.frombuffer(one, np.uint8) for one in (*(look.digest for look in looks), *(look.mirrored for look in looks))]
    places = near_pairs(np.stack(hashes), bits) % len(rows)
    pairs = rows[np.unique(np.sort(places[places[:, 0] != places[:, 1]], axis=1), axis=0)]
    different: NDArray[np.int64] = pairs[data.digests_I[pairs[:, 0]] != data.digests_I[pairs[:, 1]]]
    return different


def _near(check: Check, data: Columns, across: bool) -> Findings:
    """One finding for each picture that has a near twin before it, or for the one nearer to training of a pair across splits."""
    rank_S = np.array([{"train": 0, "val": 1}.get(name, 2 + place) for place, name in enumerate(data.names)], np.int64)
    twin: dict[int, int] = {}
    for first, second in data.once(near_pictures, check.limits.hash_bits, check.limits.flat_contrast).tolist():
        here, there = data.split_I[first], data.split_I[second]
        if (here != there) != across:
            continue
        kept, other = (second, first) if across and rank_S[there] > rank_S[here] else (first, second)
        twin.setdefault(other, kept)
    rows = np.array(sorted(twin), np.int64)
    names = [f"{data.file_names[twin[row]]} in {data.names[data.split_I[twin[row]]]}" for row in rows.tolist()]
    return data.on_pictures(check, rows, "looks nearly like {twin}", twin=names)
