"""What one loader worker more costs in memory, as a share of the dataset that all of them read.

PSS counts a page that n processes share as 1/n of a page in each: the sum over a process tree is the memory that it really takes.
"""

import gc
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Dataset, Split
from pipeline.data.loader import Sample, TrainingPictures, training_batches
from pipeline.data.truths import Truths

_PLAIN = Augmentation(short_side=640, long_side=640, flip=0.0, scale=(1.0, 1.0), crop=0.0, crop_least=1.0)
_PICTURES_AT_ONCE = 64
_NOTHING = Truths(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


class Labels(TrainingPictures):
    """The labels of the training pictures, many pictures at a position: nothing but the reading is of interest."""

    def _sample(self, row: int, position: int) -> Sample:
        """Read as for training; what was read is not sent on."""
        last = min((position + 1) * _PICTURES_AT_ONCE, len(self.split.images))
        for picture in range(position * _PICTURES_AT_ONCE, last):
            Truths.read(self.split, picture, self.tasks)
        return Sample(np.zeros((3, 1, 1), np.uint8), _NOTHING, self.split.images.file_names[last - 1])


def measure_workers(split: Split, kind: type[Labels] = Labels) -> dict[str, float]:
    """Megabytes that a worker adds with `split` and with a single picture of it; their difference as a share of the split."""
    torch.manual_seed(0)  # imports torch's compiler, as training does before it starts workers: they share that too
    alone = _per_worker(kind(split.take_images([0]), _PLAIN, "rgb", 0, tasks=("bbox", "segm")))
    each = _per_worker(kind(split, _PLAIN, "rgb", 0, tasks=("bbox", "segm")))
    share = max(0.0, each - alone) / held_bytes(split)
    return {"worker_mb": round(each / 1e6, 1), "empty_worker_mb": round(alone / 1e6, 1), "share_per_worker": round(share, 4)}


def held_bytes(value: Any) -> int:
    """Bytes of all arrays in a dataset, a split or a part of it: what has to be in memory once."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Dataset):
        return sum(map(held_bytes, value.splits.values()))
    return sum(held_bytes(getattr(value, field.name)) for field in fields(value)) if is_dataclass(value) else 0


def _per_worker(pictures: Labels) -> float:
    """Bytes that a worker adds to the process tree once it has read every label: three workers against one."""
    return (_tree_bytes(pictures, 3) - _tree_bytes(pictures, 1)) / 2


def _tree_bytes(pictures: Labels, workers: int) -> float:
    """PSS of this process and its loader workers after each worker has read every label."""
    positions = range(-(-len(pictures.split.images) // _PICTURES_AT_ONCE))
    rows = [range(position, position + 1) for position in positions for _ in range(workers)]  # workers take turns: each has all
    gc.collect()
    batches = training_batches(pictures, rows, 1, workers)  # type: ignore[arg-type]  # rows in a given order, not drawn
    for _ in rows:
        next(batches)
    total = float(sum(_pss(process.pid) for process in (psutil.Process(), *psutil.Process().children(recursive=True))))
    batches.close()  # type: ignore[attr-defined]  # a generator: the workers end with it
    return total


def _pss(pid: int) -> int:
    """Proportional set size of a process in bytes, without files: who else has the same library open is of no interest."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(rollup.partition(f"\nPss_{kind}:")[2].split()[0]) * 1024 for kind in ("Anon", "Shmem"))
