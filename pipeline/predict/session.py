"""Run an exported detector with ONNX Runtime: the whole of what a program needs to use models/onnx. Never imports torch."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.errors import DataError, UserError
from pipeline.predict.postprocess import RawDetections, paste_mask, to_picture
from pipeline.predict.preprocess import Pixels, prepare, stack
from pipeline.predict.raw_heads import CANDIDATES, METADATA, RawHeads
from pipeline.predict.rotated import Boxes, enclosing, rotated_to_picture

Precision = Literal["onnx", "int8"]
INPUTS = ["pixels", "sizes"]
OUTPUTS = ["boxes", "scores", "labels", "count"]
"""What every exported detector gives; one with further heads gives more."""
EXPORT = "python -m pipeline export writes it"


class OnnxBackend:
    """An exported file as a function: pixels uint8 [N, 3, H, W] and sizes int64 [N, 2] to detections in the network's frame.

    `optimize=False` switches ONNX Runtime's graph optimizations off, which shows how a file behaves on other hosts (an INT8 file
    above all). On CPU equal `threads` (0: all cores) give equal bytes.
    """

    def __init__(self, path: Path, threads: int = 0, optimize: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        if not path.is_file():
            raise DataError(path, "no such file", EXPORT)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a type of its own for each way a file can be wrong
            raise DataError(path, f"ONNX Runtime cannot load it: {_first_line(error)}", EXPORT) from error
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        told = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        self.raw_heads = None if told is None else RawHeads.read(told)
        wanted = {*INPUTS, *(OUTPUTS if self.raw_heads is None else CANDIDATES)}
        if missing := wanted - {entry.name for entry in self.session.get_inputs()} - {*self.outputs}:
            raise DataError(path, f"is not an exported detector: it has no {', '.join(sorted(missing))}", EXPORT)

    def __call__(self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64]) -> RawDetections:
        """Detections of one batch, in the network's frame."""
        if self.raw_heads is not None:
            return self.raw_heads(self.session.run, pixels_N3HW, sizes_N2)
        values = self.session.run(self.outputs, {"pixels": pixels_N3HW, "sizes": sizes_N2})
        found: RawDetections = dict(zip(self.outputs, values, strict=True))  # type: ignore[assignment]
        return found


@dataclass(frozen=True, slots=True)
class DeployedInput:
    """deploy.json's `input`, as far as preparation needs it; normalisation is inside the graph."""

    short_side: int
    long_side: int
    channels: Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True)
class Found:
    """Detections on one picture, best first."""

    boxes_D4: NDArray[np.float32]
    """(x1, y1, x2, y2) in the picture's pixels."""
    scores_D: NDArray[np.float32]
    labels_D: NDArray[np.int64]
    """Class 0..K-1."""
    classes: list[str]
    """Class name of each."""
    size: tuple[int, int]
    """Height and width of the picture."""
    masks_DMM: NDArray[np.float32] | None
    """Mask probabilities in the frames of the boxes; None where the detector finds boxes alone."""
    rotated_D5: Boxes | None = None
    """(cx, cy, w, h, degrees) where the detector finds rotated boxes; `boxes_D4` are then the upright boxes around them."""

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """The masks at full size [H, W], one after the other: all at once can take gigabytes. None without masks."""
        if self.masks_DMM is not None:
            for mask_MM, box_4 in zip(self.masks_DMM, self.boxes_D4, strict=True):
                yield paste_mask(mask_MM, box_4, *self.size)


@dataclass(frozen=True, slots=True)
class Detector:
    """An exported detector: the file, and how deploy.json says to feed it."""

    backend: OnnxBackend
    input: DeployedInput
    divisor: int
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """The classes' ids in the dataset that it was trained on."""

    @classmethod
    def open(cls, folder: Path, precision: Precision = "onnx", threads: int = 0, optimize: bool = True) -> Self:
        """The float (`onnx`) or `int8` file of models/onnx. DataError when a file is missing, changed or malformed."""
        place = folder / "deploy.json"
        try:
            deploy = orjson.loads(place.read_bytes())
            source = deploy["input"]
            shape = DeployedInput(int(source["short_side"]), int(source["long_side"]), source["channels"])
            if shape.channels not in ("rgb", "bgr"):
                raise ValueError(f"input.channels is {shape.channels!r}; it must be rgb or bgr")
            files, divisor = deploy["files"], int(deploy["divisor"])
            classes, ids = tuple(map(str, deploy["classes"])), tuple(map(int, deploy["category_ids"]))
            file, digest = str(files[precision]["file"]), str(files[precision]["digest"])
        except OSError as error:
            raise DataError(place, "cannot be read: is there an exported detector?", EXPORT) from error
        except (KeyError, TypeError, ValueError) as error:  # orjson's decoding error is a ValueError
            raise DataError(place, f"is not a description of an exported detector: {_first_line(error)}", EXPORT) from error
        if Path(file).name != file:
            raise DataError(place, f"files.{precision} leaves the folder: {file!r}")
        if (folder / file).is_file() and _digest(folder / file) != digest:
            raise DataError(folder / file, f"is not the file that {place.name} describes and export tested", EXPORT)
        return cls(OnnxBackend(folder / file, threads, optimize), shape, divisor, classes, ids)

    def predict(self, image_HW3: Pixels, threshold: float = 0.0) -> Found:
        """Detections on one RGB picture whose score is at least `threshold`."""
        return self.predict_batch([image_HW3], threshold)[0]

    def predict_batch(self, images: Sequence[Pixels], threshold: float = 0.0) -> list[Found]:
        """Detections on several RGB pictures [H, W, 3], of any sizes, in one run."""
        pixels_N3HW, sizes_N2 = stack([prepare(image, self.input) for image in images], self.divisor)
        try:
            raw = self.backend(pixels_N3HW, sizes_N2)
        except Exception as error:
            raise UserError(f"the exported detector failed on {pixels_N3HW.shape} pixels: {_first_line(error)}") from error
        found = []
        for place, image in enumerate(images):
            count = int(raw["count"][place])
            size = (int(sizes_N2[place, 0]), int(sizes_N2[place, 1]))
            rotated_D5, out_size = None, (image.shape[0], image.shape[1])
            if "rotated" in raw:
                rotated_D5, rows = rotated_to_picture(raw["rotated"][place, :count], size, out_size)
                boxes_D4 = enclosing(rotated_D5).astype(np.float32)
            else:
                boxes_D4, rows = to_picture(raw["boxes"][place, :count], size, out_size)
            scores_D, labels_D = raw["scores"][place, :count][rows], raw["labels"][place, :count][rows]
            good = scores_D >= threshold
            names = [self.classes[label] for label in labels_D[good].tolist()]
            masks_DMM = raw["masks"][place, :count][rows][good] if "masks" in raw else None
            turned_D5 = None if rotated_D5 is None else rotated_D5[good]
            found.append(Found(boxes_D4[good], scores_D[good], labels_D[good], names, out_size, masks_DMM, turned_D5))
        return found


def _digest(path: Path) -> str:
    """As pipeline.files.digest_file writes it; this room imports `errors` alone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
