"""Run a detector over a split, whatever runs it: torch, or an ONNX file, behind one small contract."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset, Split
from pipeline.data.proposals import MAKE
from pipeline.errors import DataError, UserError
from pipeline.evaluation.found import Predictions, found_in, picture_of
from pipeline.predict.panoptic import Merging
from pipeline.predict.postprocess import RawDetections
from pipeline.predict.preprocess import Input, Pixels, prepare, read_image, stack
from pipeline.predict.session import PROPOSALS
from pipeline.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipeline.detector.config import ModelConfig
    from pipeline.detector.weights import Loaded

READERS = 2
"""Pictures decoded ahead while the detector works; decoding leaves Python's lock."""


class Backend(Protocol):
    """A detector as a function of numpy arrays: pixels uint8 [N, 3, H, W] and sizes int64 [N, 2] to detections.

    One with a true attribute `takes_proposals` wants a third, proposals float32 [N, P, 4] in the network's frame.
    """

    def __call__(self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64], /) -> RawDetections:
        """Detections of one batch, in the network's frame."""


class TorchBackend:
    """A detector module as a backend. The module is left in the mode (train or eval) that it was in."""

    def __init__(self, model: "nn.Module", device: str) -> None:
        self.model, self.device = model, device
        self.takes_proposals: bool = getattr(model, "takes_proposals", False)

    def __call__(
        self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64], proposals_NP4: NDArray[np.float32] | None = None
    ) -> RawDetections:
        """Detections of one batch, computed on the device without gradients."""
        import torch

        from pipeline.structures import Images

        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                proposals = None if proposals_NP4 is None else torch.from_numpy(proposals_NP4)
                images = Images(torch.from_numpy(pixels_N3HW), torch.from_numpy(sizes_N2), proposals).to(self.device)
                found = self.model.detect(images).to("cpu")  # type: ignore[operator]
        finally:
            self.model.train(training)
        if not bool(found.finite_N.all()):
            raise UserError(
                "the detector gives values that are not finite\n  train again, with a lower train.optimizer.lr or train.clip set"
            )
        raw: RawDetections = {name: _plain(value) for name, value in found.named().items()}  # type: ignore[assignment]
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
    merging: Merging | None = None,
) -> Predictions:
    """Detections of every picture of `split` (or of its `rows`), in the order of the split.

    Pictures are prepared as everywhere, batched `batch` at a time in the split's order, so equal inputs give equal bytes; class
    `k` becomes category `label_to_category[k]`. `progress(done, total)` is told after each batch; `merging` says how
    panoptic maps are made, where there are any. DataError names a picture that cannot be read.
    """
    chosen = list(range(len(split.images.ids_I))) if rows is None else list(rows)
    categories = np.asarray(label_to_category, np.int64)
    parts: list[Predictions] = []
    done = 0
    for batch_rows, images in _batches(split, chosen, batch):
        feed = network_input(split, batch_rows, images, input, divisor, getattr(backend, "takes_proposals", False))
        sizes_N2 = feed["sizes"]
        raw = backend(*feed.values())
        stride = feed["pixels"].shape[2] // raw["semantic"].shape[2] if "semantic" in raw else 0
        for place, (row, image) in enumerate(zip(batch_rows, images, strict=True)):
            size = (int(sizes_N2[place, 0]), int(sizes_N2[place, 1]))
            own = picture_of(raw, place)
            image_id, out_size = int(split.images.ids_I[row]), (image.shape[0], image.shape[1])
            parts.append(found_in(own, image_id, categories, size, out_size, stride, merging))
        done += len(images)
        if progress is not None:
            progress(done, len(chosen))
    return Predictions.joined(parts)


def network_input(
    split: Split, rows: Sequence[int], images: Sequence[Pixels], input: Input, divisor: int, proposals: bool
) -> dict[str, NDArray[Any]]:
    """What a network is fed with for the decoded pictures `rows` of a split: pixels, sizes, and maybe the split's proposals.

    DataError when the network takes proposals and the split has none.
    """
    pixels_N3HW, sizes_N2 = stack([prepare(image, input) for image in images], divisor)
    feed: dict[str, NDArray[Any]] = {"pixels": pixels_N3HW, "sizes": sizes_N2}
    if not proposals:
        return feed
    if split.proposals is None:
        raise DataError(split.folder.parent, f"the split {split.name} has no proposals, which this model looks at", MAKE)
    own = [split.proposals.of(row) for row in rows]
    boxes_NP4 = np.zeros((len(rows), max(1, *map(len, own)), 4), np.float32)
    for place, (boxes_P4, image) in enumerate(zip(own, images, strict=True)):
        scale_2 = np.array([sizes_N2[place, 1] / image.shape[1], sizes_N2[place, 0] / image.shape[0]], np.float32)
        boxes_NP4[place, : len(boxes_P4)] = boxes_P4 * np.tile(scale_2, 2)
    return feed | {PROPOSALS: boxes_NP4}


def predict_with(backend: Backend, detector: "Loaded", split: Split, batch: int, what: str) -> Predictions:
    """Detections of a saved detector's backend over `split`, with progress under the name `what`."""
    ids = [category["id"] for category in detector.categories]
    merging = merging_of(detector.cfg, [category["id"] for category in detector.stuff])
    with Progress(what, len(split.images)) as progress:
        return predict_split(
            backend,
            split,
            detector.cfg.input,
            detector.model.divisor,
            batch,
            ids,
            lambda done, _: progress.show(done, ""),
            merging=merging,
        )


def merging_of(cfg: "ModelConfig", stuff_ids: Sequence[int]) -> Merging | None:
    """How the detector's panoptic maps are made; None where it makes none."""
    if cfg.kind != "panoptic_fpn":
        return None
    return Merging(cfg.combine.overlap, cfg.combine.stuff_area, cfg.combine.score, tuple(stuff_ids))


def require_classes(detector: "Loaded", dataset: Dataset, place: Path) -> None:
    """DataError that lists both, unless the detector's classes are the dataset's, in the same order (or it tells none apart)."""
    if "proposals" in detector.cfg.tasks:
        return
    learnt = [f"{category['name']} ({category['id']})" for category in detector.categories]
    asked = [f"{category.name} ({category.id})" for category in dataset.info.categories]
    if "semantic" in detector.cfg.tasks:
        learnt += [f"ground {name}" for name in detector.semantic]
        asked += [f"ground {name}" for name in dataset.info.semantic]
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


def _plain(value: "torch.Tensor") -> NDArray[Any]:
    """On the CPU as numpy has it: floats in float32."""
    array: NDArray[Any] = (value.float() if value.is_floating_point() else value).numpy()
    return array
