"""Run a detector over a split, whatever runs it: torch, or an ONNX file, behind one small contract."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset, Split
from pipeline.errors import DataError, UserError
from pipeline.predict.postprocess import RawDetections, Rle, encode_mask, paste_mask, to_picture
from pipeline.predict.preprocess import Input, Pixels, prepare, read_image, stack
from pipeline.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from pipeline.detector.weights import Loaded

READERS = 2
"""Pictures decoded ahead while the detector works; decoding leaves Python's lock."""


class Backend(Protocol):
    """A detector as a function of numpy arrays: pixels uint8 [N, 3, H, W] and sizes int64 [N, 2] to detections."""

    def __call__(self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64]) -> RawDetections:
        """Detections of one batch, in the network's frame."""


@dataclass(slots=True)
class Predictions:
    """Detections over pictures, one row each (D in all), picture by picture in falling score order."""

    image_ids_D: NDArray[np.int64]
    boxes_D4: NDArray[np.float64]
    """(x1, y1, x2, y2) in pixels of the stored picture."""
    scores_D: NDArray[np.float64]
    category_ids_D: NDArray[np.int64]
    masks_D: list[Rle] | None = None
    """Masks of the stored pictures as run lengths; None where the detector finds boxes alone."""

    def __len__(self) -> int:
        return len(self.scores_D)

    def of(self, image_id: int) -> "Predictions":
        """The rows of one picture."""
        rows = np.flatnonzero(self.image_ids_D == image_id)
        masks_D = None if self.masks_D is None else [self.masks_D[row] for row in rows.tolist()]
        return Predictions(self.image_ids_D[rows], self.boxes_D4[rows], self.scores_D[rows], self.category_ids_D[rows], masks_D)

    def to_coco(self) -> list[dict[str, Any]]:
        """COCO's results format: [{image_id, category_id, bbox [x, y, w, h], score}], unrounded so that it measures the same.

        Where there are masks each has a segmentation; to measure masks by pycocotools drop bbox first, or its area counts.
        """
        xywh_D4 = np.concatenate([self.boxes_D4[:, :2], self.boxes_D4[:, 2:] - self.boxes_D4[:, :2]], axis=1)
        columns = (column.tolist() for column in (self.image_ids_D, self.category_ids_D, xywh_D4, self.scores_D))
        rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in zip(*columns, strict=True)]
        for row, rle in zip(rows, self.masks_D or (), strict=False):
            row["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        return rows


class TorchBackend:
    """A detector module as a backend. The module is left in the mode (train or eval) that it was in."""

    def __init__(self, model: "nn.Module", device: str) -> None:
        self.model, self.device = model, device

    def __call__(self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64]) -> RawDetections:
        """Detections of one batch, computed on the device without gradients."""
        import torch

        from pipeline.structures import Images

        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                images = Images(torch.from_numpy(pixels_N3HW), torch.from_numpy(sizes_N2)).to(self.device)
                found = self.model.detect(images).to("cpu")  # type: ignore[operator]
        finally:
            self.model.train(training)
        if not bool(found.finite_N.all()):
            raise UserError(
                "the detector gives values that are not finite\n  train again, with a lower train.optimizer.lr or train.clip set"
            )
        raw: RawDetections = {
            "boxes": found.boxes_ND4.float().numpy(),
            "scores": found.scores_ND.float().numpy(),
            "labels": found.labels_ND.numpy(),
            "count": found.count_N.numpy(),
        }
        if found.masks_NDMM is not None:
            raw["masks"] = found.masks_NDMM.float().numpy()
        return raw


def predict_split(
    backend: Backend,
    split: Split,
    input: Input,
    divisor: int,
    batch: int,
    label_to_category: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    rows: Sequence[int] | None = None,
) -> Predictions:
    """Detections of every picture of `split` (or of its `rows`), in the order of the split.

    Pictures are prepared as everywhere, batched `batch` at a time in the split's order, so equal inputs give equal bytes; class
    `k` becomes category `label_to_category[k]`. `progress(done, total)` is told after each batch. DataError names a picture
    that cannot be read.
    """
    chosen = list(range(len(split.images.ids_I))) if rows is None else list(rows)
    categories = np.asarray(label_to_category, np.int64)
    parts: list[Predictions] = []
    done = 0
    for batch_rows, images in _batches(split, chosen, batch):
        pixels_N3HW, sizes_N2 = stack([prepare(image, input) for image in images], divisor)
        raw = backend(pixels_N3HW, sizes_N2)
        for place, (row, image) in enumerate(zip(batch_rows, images, strict=True)):
            count = int(raw["count"][place])
            boxes_D4, kept_D = to_picture(
                raw["boxes"][place, :count],
                (int(sizes_N2[place, 0]), int(sizes_N2[place, 1])),
                (image.shape[0], image.shape[1]),
            )
            labels_D = raw["labels"][place, :count][kept_D]
            ids = np.full(len(labels_D), int(split.images.ids_I[row]), np.int64)
            scores_D = raw["scores"][place, :count][kept_D].astype(np.float64)
            masks_D: list[Rle] | None = None
            if "masks" in raw:  # encoded picture by picture: all of a split's bitmaps would not fit
                low_DMM = raw["masks"][place, :count][kept_D]
                pairs = zip(low_DMM, boxes_D4, strict=True)
                masks_D = [encode_mask(paste_mask(mask_MM, box_4, *image.shape[:2])) for mask_MM, box_4 in pairs]
            parts.append(Predictions(ids, boxes_D4.astype(np.float64), scores_D, categories[labels_D], masks_D))
        done += len(images)
        if progress is not None:
            progress(done, len(chosen))
    return _concatenate(parts)


def predict_with(backend: Backend, detector: "Loaded", split: Split, batch: int, what: str) -> Predictions:
    """Detections of a saved detector's backend over `split`, with progress under the name `what`."""
    ids = [category["id"] for category in detector.categories]
    with Progress(what, len(split.images)) as progress:
        return predict_split(
            backend, split, detector.cfg.input, detector.model.divisor, batch, ids, lambda done, _: progress.show(done, "")
        )


def require_classes(detector: "Loaded", dataset: Dataset, place: Path) -> None:
    """DataError that lists both, unless the detector's classes are the dataset's, in the same order."""
    learnt = [f"{category['name']} ({category['id']})" for category in detector.categories]
    asked = [f"{category.name} ({category.id})" for category in dataset.info.categories]
    if learnt != asked:
        wrong = f"its classes are not the detector's\n  dataset:  {', '.join(asked)}\n  detector: {', '.join(learnt)}"
        raise DataError(place, wrong, "train on this dataset first: python -m pipeline train")


def _batches(split: Split, rows: Sequence[int], batch: int) -> Iterator[tuple[Sequence[int], list[Pixels]]]:
    """Batches of decoded pictures, the next one being read while the caller works on this one."""

    def read(batch_rows: Sequence[int]) -> list[Pixels]:
        return list(pool.map(lambda row: read_image(split.path(row)), batch_rows))

    groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    with ThreadPoolExecutor(READERS) as pool, ThreadPoolExecutor(1) as ahead:
        upcoming = [ahead.submit(read, group) for group in groups[:1]]
        for place, group in enumerate(groups):
            images = upcoming.pop().result()
            upcoming += [ahead.submit(read, later) for later in groups[place + 1 : place + 2]]
            yield group, images


def _concatenate(parts: Iterable[Predictions]) -> Predictions:
    gathered = list(parts) or [
        Predictions(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)),
    ]
    return Predictions(
        np.concatenate([part.image_ids_D for part in gathered]),
        np.concatenate([part.boxes_D4 for part in gathered]),
        np.concatenate([part.scores_D for part in gathered]),
        np.concatenate([part.category_ids_D for part in gathered]),
        None if any(part.masks_D is None for part in gathered) else [rle for part in gathered for rle in part.masks_D or ()],
    )
