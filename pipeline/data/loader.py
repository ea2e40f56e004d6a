"""Training batches: an endless seeded stream of padded pictures and truths, the same whatever the number of workers."""

import gc
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from pipeline.data.annotations import PolygonPool
from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Split
from pipeline.data.dense import FRAME
from pipeline.data.maps import IGNORED
from pipeline.data.sampler import PictureOrder, StepSampler
from pipeline.data.truths import Truths
from pipeline.errors import DataError, UserError
from pipeline.predict.preprocess import read_image, stack
from pipeline.process import die_with_parent
from pipeline.structures import DensePoints, Images, Polygons, Targets
from pipeline.tasks import BOXES, Task


@dataclass(slots=True)
class Batch:
    """One training step's pictures, truths and, for error messages, file names."""

    images: Images
    targets: Targets
    names: list[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One augmented picture (uint8 [3, h, w] in the model's channel order), its truths and its name."""

    pixels_3HW: np.ndarray
    truths: Truths
    name: str


class TrainingPictures(torch.utils.data.Dataset[Sample | UserError]):
    """Pictures of one split by position in the endless stream: position fixes the picture, its order and its augmentation.

    The samples carry what the tasks learn from, and with `proposals` the split's own. `repeats` [I] is how often each picture
    comes in a lap (`data.sampler.repeat_factors`); None shows each once. `mirrors_CK` is `keypoints.mirror_table` of the classes.
    """

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation,
        channels: str,
        seed: int,
        tasks: Collection[Task] = BOXES,
        proposals: bool = False,
        repeats: NDArray[np.float64] | None = None,
        mirrors_CK: NDArray[np.int64] | None = None,
    ) -> None:
        self.split, self.augmentation, self.channels, self.seed = split, augmentation, channels, seed
        self.tasks, self.proposals, self.mirrors_CK = tasks, proposals, mirrors_CK
        self.order = PictureOrder(len(split.images.file_names), seed, repeats)

    def __getitem__(self, position: int) -> Sample | UserError:
        """The sample at `position`, or why there is none: torch wraps what a worker raises in a stack trace of its own."""
        try:
            return self._sample(self.order.row(position), position)
        except UserError as error:
            return UserError(str(error))

    def _sample(self, row: int, position: int) -> Sample:
        image = Image.fromarray(read_image(self.split.path(row)))
        seed = int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])
        read = Truths.read(self.split, row, self.tasks, self.proposals, self.mirrors_CK)
        if read.semantic_HW is not None and read.semantic_HW.shape != (image.height, image.width):
            height, width = read.semantic_HW.shape
            wrong = f"is {image.height} x {image.width} pixels, its semantic map {height} x {width}"
            raise DataError(self.split.path(row), wrong, "was the picture resized? bring back either of them")
        pixels_HW3, truths = self.augmentation(image, read, seed)
        ordered = pixels_HW3 if self.channels == "rgb" else pixels_HW3[..., ::-1]
        return Sample(np.ascontiguousarray(ordered.transpose(2, 0, 1)), truths, self.split.images.file_names[row])


def collate(given: list[Sample | UserError], divisor: int) -> Batch | UserError:
    """Pad pictures at the right and bottom to a common multiple of `divisor`, truths to the batch's own maximum.

    The first error among the samples takes the batch's place.
    """
    samples = [sample for sample in given if isinstance(sample, Sample)]
    for error in given:
        if isinstance(error, UserError):
            return error
    pixels_N3HW, sizes_N2 = stack([(sample.pixels_3HW, sample.pixels_3HW.shape[1:]) for sample in samples], divisor)
    images = Images(torch.from_numpy(pixels_N3HW), torch.from_numpy(sizes_N2), proposed([sample.truths for sample in samples]))
    height, width = pixels_N3HW.shape[2:]
    targets = padded([sample.truths for sample in samples], height, width)
    if targets.polygons is not None:
        targets.polygons.sizes_N2 = images.sizes_N2
    return Batch(images, targets, [sample.name for sample in samples])


def padded(truths: Sequence[Truths], height: int, width: int) -> Targets:
    """The truths of a batch's pictures, padded to the largest number of objects among them (at least 1), maps to the batch's
    `height` and `width`."""
    most = max(1, *map(len, truths))
    return Targets(
        boxes_NG4=torch.from_numpy(filled([one.boxes_G4 for one in truths], most, 0)),
        labels_NG=torch.from_numpy(filled([one.labels_G for one in truths], most, -1)),
        polygons=pooled([one.polygons for one in truths if one.polygons is not None], most),
        semantic_NHW=mapped([one.semantic_HW for one in truths if one.semantic_HW is not None], height, width),
        keypoints_NGK3=_filled([one.keypoints_GK3 for one in truths if one.keypoints_GK3 is not None], most),
        rotated_NG5=_filled([one.rotated_G5 for one in truths if one.rotated_G5 is not None], most),
        points=dense_points(truths, most) if truths[0].dense is not None else None,
    )


def mapped(maps: Sequence[np.ndarray], height: int, width: int) -> torch.Tensor | None:
    """The semantic maps of a batch's pictures as uint8 [N, height, width], ignored in the padding; None without maps."""
    if not maps:
        return None
    batch = np.full((len(maps), height, width), IGNORED, np.uint8)
    for index, own_HW in enumerate(maps):
        batch[index, : own_HW.shape[0], : own_HW.shape[1]] = own_HW
    return torch.from_numpy(batch)


def _filled(rows: Sequence[np.ndarray], most: int) -> torch.Tensor | None:
    """`filled` with zeros, as a tensor; None of nothing."""
    return torch.from_numpy(filled(rows, most, 0)) if rows else None


def proposed(truths: Sequence[Truths]) -> torch.Tensor | None:
    """The proposals of a batch's pictures, padded by boxes without area; None where the pictures have none."""
    boxes = [one.proposals_P4 for one in truths if one.proposals_P4 is not None]
    return torch.from_numpy(filled(boxes, max(1, *map(len, boxes)), 0)) if boxes else None


def filled(rows: Sequence[np.ndarray], most: int, fill: float) -> np.ndarray:
    """[N, most, ...] of arrays [g, ...] with `fill` in the rows that are not there."""
    batch = np.full((len(rows), most, *rows[0].shape[1:]), fill, rows[0].dtype)
    for index, values in enumerate(rows):
        batch[index, : len(values)] = values
    return batch


def pooled(pools: Sequence[PolygonPool], most: int) -> Polygons | None:
    """The outlines of a batch's pictures as one pool over N x `most` truths; None without outlines."""
    if not pools:
        return None
    owned_NG = np.zeros((len(pools), most), np.int64)
    for index, pool in enumerate(pools):
        counts = np.diff(pool.annotation_starts)
        owned_NG[index, : len(counts)] = counts
    lengths = np.concatenate([np.diff(pool.polygon_starts) for pool in pools])
    return Polygons(
        points_P2=torch.from_numpy(np.concatenate([pool.points_P2 for pool in pools]).astype(np.float64)),
        polygon_starts=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int64)),
        truth_starts=torch.from_numpy(np.cumsum([0, *owned_NG.reshape(-1)], dtype=np.int64)),
    )


def dense_points(truths: Sequence[Truths], most: int) -> DensePoints:
    """The dense pose labels of a batch's pictures in the frames of their boxes, a row for each object that has any."""
    row_NG = np.full((len(truths), most), -1, np.int64)
    points: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    uv: list[np.ndarray] = []
    coarse: list[np.ndarray] = []
    for index, one in enumerate(truths):
        dense = None if one.dense is None else one.dense.in_boxes(one.boxes_G4)
        for row, (first, last) in enumerate(pairwise(() if dense is None else dense.starts.tolist())):
            if dense is None or first == last:
                continue
            row_NG[index, row] = len(points)
            points.append(dense.points_P2[first:last].astype(np.float32))
            parts.append(dense.parts_P[first:last].astype(np.int64))
            uv.append(dense.uv_P2[first:last].astype(np.float32))
            coarse.append(dense.coarse_G[row])
    none = np.zeros((0, 2), np.float32)
    longest = max(1, *map(len, parts), 1)
    return DensePoints(
        points_TP2=torch.from_numpy(filled(points or [none], longest, 0)),
        parts_TP=torch.from_numpy(filled(parts or [np.zeros(0, np.int64)], longest, -1)),
        uv_TP2=torch.from_numpy(filled(uv or [none], longest, 0)),
        coarse_TSS=torch.from_numpy(np.stack(coarse or [np.zeros((FRAME, FRAME), np.uint8)])),
        row_NG=torch.from_numpy(row_NG),
    )


def training_batches(pictures: TrainingPictures, sampler: StepSampler, divisor: int, workers: int) -> Iterator[Batch]:
    """The sampler's batches, read ahead by `workers` processes. UserError names an unreadable picture."""
    loader = DataLoader(
        pictures,
        batch_sampler=sampler,  # type: ignore[arg-type]  # an iterable of ranges does
        num_workers=workers,
        collate_fn=partial(collate, divisor=divisor),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else each start of the workers takes a number from torch's global generator
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        yield made


def _start_worker(_: int) -> None:
    die_with_parent()
    gc.freeze()  # a collection writes into every object that it looks at, and so would copy the dataset's pages into this worker
