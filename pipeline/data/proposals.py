"""Precomputed proposals of a split: boxes worth a look that something else made, for Fast R-CNN. numpy only.

On disk `proposals/<split>.npz` beside the labels: image_ids [I], starts [I + 1], boxes [P, 4] (x1, y1, x2, y2) in the stored
pictures' pixels and scores [P]; picture i has the rows from starts[i] to starts[i + 1]. Read without pickle.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import write_atomically

FIELDS = ("image_ids", "starts", "boxes", "scores")
MAKE = "write proposals/<split>.npz beside the labels (image_ids, starts, boxes, scores), or take a model that makes its own"


@dataclass(frozen=True, slots=True)
class ProposalPool:
    """The proposals of a split's pictures laid end to end, in the pictures' order."""

    starts_I: NDArray[np.int64]
    """[I + 1]: picture i has the rows starts[i] : starts[i + 1]."""
    boxes_P4: NDArray[np.float32]
    """(x1, y1, x2, y2) in pixels of the stored picture."""
    scores_P: NDArray[np.float32]

    @classmethod
    def joined(cls, pictures: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> "ProposalPool":
        """From boxes and scores of each picture."""
        starts_I = np.cumsum([0, *(len(boxes) for boxes, _ in pictures)], dtype=np.int64)
        boxes_P4 = np.concatenate([np.zeros((0, 4), np.float32), *(boxes for boxes, _ in pictures)])
        scores_P = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in pictures)])
        return cls(starts_I, boxes_P4.astype(np.float32), scores_P.astype(np.float32))

    def of(self, row: int) -> NDArray[np.float32]:
        """Boxes [p, 4] of picture `row` by falling score; equal scores keep their order."""
        own = slice(int(self.starts_I[row]), int(self.starts_I[row + 1]))
        return self.boxes_P4[own][np.argsort(-self.scores_P[own], kind="stable")]

    def take(self, index_I: NDArray[np.int64]) -> "ProposalPool":
        """The pictures of `index_I`, in that order."""
        rows = [slice(int(self.starts_I[i]), int(self.starts_I[i + 1])) for i in index_I]
        return ProposalPool.joined([(self.boxes_P4[own], self.scores_P[own]) for own in rows])


def write_proposals(path: Path, pool: ProposalPool, image_ids_I: NDArray[np.int64]) -> None:
    """Write the pool of the pictures `image_ids` to `path`; the same content gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    ids_I = image_ids_I.astype(np.int64)
    np.savez(buffer, image_ids=ids_I, starts=pool.starts_I, boxes=pool.boxes_P4, scores=pool.scores_P)
    write_atomically(path, buffer.getvalue())


def read_proposals(path: Path, image_ids_I: NDArray[np.int64]) -> ProposalPool:
    """The pool in `path`, in the order of `image_ids`. DataError names the file and what is wrong in it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            image_ids, starts, boxes, scores = (file[name] for name in FIELDS)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise DataError(path, f"holds no proposals: {error}", f"it needs the arrays {', '.join(FIELDS)}") from error
    pictures, count = len(image_ids), len(boxes)
    shapes = starts.shape == (pictures + 1,) and boxes.shape == (count, 4) and scores.shape == (count,)
    if not shapes or pictures == 0 or starts[0] != 0 or starts[-1] != count or (np.diff(starts) < 0).any():
        given = f"{starts.shape} starts, {boxes.shape} boxes and {scores.shape} scores"
        raise DataError(path, f"{given} do not fit {pictures} pictures")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(path, "holds boxes or scores that are not finite")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        wrong = int(np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))[0])
        raise DataError(path, f"box {wrong} ends before it begins: {boxes[wrong].tolist()}", "boxes are x1, y1, x2, y2 in pixels")
    place = {int(number): row for row, number in enumerate(image_ids)}
    if missing := [int(number) for number in image_ids_I if int(number) not in place]:
        what = f"has no entry for {len(missing)} pictures, such as id {missing[0]}"
        raise DataError(path, what, "give them entries, be they empty")
    pool = ProposalPool(starts.astype(np.int64), boxes.astype(np.float32), scores.astype(np.float32))
    return pool.take(np.array([place[int(number)] for number in image_ids_I], np.int64))
