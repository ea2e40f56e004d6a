"""Training batches: an endless seeded stream of padded pictures and truths, the same whatever the number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Split
from pipeline.data.sampler import StepSampler
from pipeline.errors import UserError
from pipeline.predict.preprocess import read_image, stack
from pipeline.process import die_with_parent
from pipeline.structures import Images, Targets


@dataclass(slots=True)
class Batch:
    """One training step's pictures, truths and, for error messages, file names."""

    images: Images
    targets: Targets
    names: list[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One augmented picture (uint8 [3, h, w] in the model's channel order) with its boxes [g, 4], labels [g] and name."""

    pixels_3HW: np.ndarray
    boxes_G4: np.ndarray
    labels_G: np.ndarray
    name: str


class TrainingPictures(torch.utils.data.Dataset[Sample | UserError]):
    """Pictures of one split by position in the endless stream: position fixes the picture, its order and its augmentation."""

    def __init__(self, split: Split, augmentation: Augmentation, channels: str, seed: int) -> None:
        self.split, self.augmentation, self.channels, self.seed = split, augmentation, channels, seed
        self._lap, self._order = -1, np.zeros(0, np.int64)

    def __getitem__(self, position: int) -> Sample | UserError:
        """The sample at `position`, or why there is none: torch wraps what a worker raises in a stack trace of its own."""
        try:
            return self._sample(self._row(position), position)
        except UserError as error:
            return UserError(str(error))

    def _sample(self, row: int, position: int) -> Sample:
        annotations, rows = self.split.annotations, self.split.rows_of(row)
        learn_A = ~annotations.crowd_A[rows] & (annotations.label_A[rows] >= 0)
        image = Image.fromarray(read_image(self.split.path(row)))
        seed = int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])
        pixels_HW3, boxes_G4, labels_G = self.augmentation(
            image, annotations.boxes_A4[rows][learn_A], annotations.label_A[rows][learn_A], seed
        )
        ordered = pixels_HW3 if self.channels == "rgb" else pixels_HW3[..., ::-1]
        return Sample(np.ascontiguousarray(ordered.transpose(2, 0, 1)), boxes_G4, labels_G, self.split.images.file_names[row])

    def _row(self, position: int) -> int:
        """Every pass over the split is a new seeded shuffle of all its pictures."""
        count = len(self.split.images.file_names)
        lap, place = divmod(position, count)
        if lap != self._lap:
            self._lap, self._order = lap, np.random.Generator(np.random.PCG64([self.seed, lap])).permutation(count)
        return int(self._order[place])


def collate(given: list[Sample | UserError], divisor: int) -> Batch | UserError:
    """Pad pictures at the right and bottom to a common multiple of `divisor`, truths to the batch's own maximum.

    The first error among the samples takes the batch's place.
    """
    samples = [sample for sample in given if isinstance(sample, Sample)]
    for error in given:
        if isinstance(error, UserError):
            return error
    pixels_N3HW, sizes_N2 = stack([(sample.pixels_3HW, sample.pixels_3HW.shape[1:]) for sample in samples], divisor)
    most = max(1, *(len(sample.labels_G) for sample in samples))
    boxes_NG4, labels_NG = np.zeros((len(samples), most, 4), np.float32), np.full((len(samples), most), -1, np.int64)
    for index, sample in enumerate(samples):
        boxes_NG4[index, : len(sample.labels_G)] = sample.boxes_G4
        labels_NG[index, : len(sample.labels_G)] = sample.labels_G
    images = Images(torch.from_numpy(pixels_N3HW), torch.from_numpy(sizes_N2))
    return Batch(images, Targets(torch.from_numpy(boxes_NG4), torch.from_numpy(labels_NG)), [sample.name for sample in samples])


def training_batches(pictures: TrainingPictures, sampler: StepSampler, divisor: int, workers: int) -> Iterator[Batch]:
    """The sampler's batches, read ahead by `workers` processes. UserError names an unreadable picture."""
    loader = DataLoader(
        pictures,
        batch_sampler=sampler,  # type: ignore[arg-type]  # an iterable of ranges does
        num_workers=workers,
        collate_fn=partial(collate, divisor=divisor),
        worker_init_fn=_tie_to_parent,
        generator=torch.Generator(),  # else each start of the workers takes a number from torch's global generator
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        yield made


def _tie_to_parent(_: int) -> None:
    die_with_parent()
