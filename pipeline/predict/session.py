"""Run an exported detector with ONNX Runtime: the whole of what a program needs to use models/onnx. Never imports torch."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.errors import DataError, UserError
from pipeline.predict.keypoints import decode_keypoints, to_picture_points
from pipeline.predict.panoptic import Merging, Segments, merged, semantic_map
from pipeline.predict.postprocess import RawDetections, paste_mask, to_picture
from pipeline.predict.preprocess import Pixels, prepare, stack
from pipeline.predict.raw_heads import CANDIDATES, METADATA, RawHeads
from pipeline.predict.rotated import Boxes, enclosing, rotated_to_picture

Precision = Literal["onnx", "int8"]
INPUTS = ["pixels", "sizes"]
PROPOSALS = "proposals"
"""Third input of a detector that takes proposals: float32 (x1, y1, x2, y2) [N, P, 4] in the network's pixels."""
OUTPUTS = ["boxes", "scores", "labels", "count"]
"""What an exported detector of boxes gives; one with further heads gives more."""
SEMANTIC = "semantic"
"""What a detector of semantic maps gives, alone or beside boxes."""
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
        self.takes_proposals = PROPOSALS in [entry.name for entry in self.session.get_inputs()]
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        told = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        self.raw_heads = None if told is None else RawHeads.read(told)
        results = OUTPUTS if self.raw_heads is None else CANDIDATES
        wanted = {*INPUTS, *(() if self.outputs == [SEMANTIC] else results)}
        if missing := wanted - {entry.name for entry in self.session.get_inputs()} - {*self.outputs}:
            raise DataError(path, f"is not an exported detector: it has no {', '.join(sorted(missing))}", EXPORT)

    def __call__(
        self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64], proposals_NP4: NDArray[np.float32] | None = None
    ) -> RawDetections:
        """Detections of one batch, in the network's frame; `proposals` only for a file that takes them."""
        if self.raw_heads is not None:
            return self.raw_heads(self.session.run, pixels_N3HW, sizes_N2)
        feed: dict[str, NDArray[Any]] = {"pixels": pixels_N3HW, "sizes": sizes_N2}
        if proposals_NP4 is not None:
            feed[PROPOSALS] = proposals_NP4
        values = self.session.run(self.outputs, feed)
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
    semantic_HW: NDArray[np.uint8] | None = None
    """Semantic class of each pixel; None where the detector makes no maps."""
    segments: Segments | None = None
    """Panoptic segments; None where it makes none."""
    keypoints_D: list[NDArray[np.float32]] | None = None
    """(x, y, score 0..1) [K, 3] of each object's own keypoints, in the picture's pixels; None where the detector finds none."""
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
    semantic: tuple[str, ...] = ()
    """Names of the semantic classes."""
    keypoints: tuple[tuple[str, ...], ...] = ()
    """Names of each class's keypoints, where the detector finds keypoints."""
    skeletons: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Pairs of each class's keypoints to join when drawing, counted from 0."""
    merging: Merging | None = None
    """How panoptic maps are made; None where it makes none."""

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
            semantic, merging = tuple(map(str, deploy.get("semantic", ()))), _merging(deploy.get("merging"))
            keypoints = tuple(tuple(map(str, names)) for names in deploy.get("keypoints", ()))
            skeletons = tuple(tuple((int(a), int(b)) for a, b in pairs) for pairs in deploy.get("skeletons", ()))
            file, digest = str(files[precision]["file"]), str(files[precision]["digest"])
        except OSError as error:
            raise DataError(place, "cannot be read: is there an exported detector?", EXPORT) from error
        except (KeyError, TypeError, ValueError) as error:  # orjson's decoding error is a ValueError
            raise DataError(place, f"is not a description of an exported detector: {_first_line(error)}", EXPORT) from error
        if Path(file).name != file:
            raise DataError(place, f"files.{precision} leaves the folder: {file!r}")
        if (folder / file).is_file() and _digest(folder / file) != digest:
            raise DataError(folder / file, f"is not the file that {place.name} describes and export tested", EXPORT)
        return cls(
            OnnxBackend(folder / file, threads, optimize), shape, divisor, classes, ids, semantic, keypoints, skeletons, merging
        )

    def predict(self, image_HW3: Pixels, threshold: float = 0.0) -> Found:
        """Detections on one RGB picture whose score is at least `threshold`."""
        return self.predict_batch([image_HW3], threshold)[0]

    def predict_batch(self, images: Sequence[Pixels], threshold: float = 0.0) -> list[Found]:
        """Detections on several RGB pictures [H, W, 3], of any sizes, in one run; UserError for one that takes proposals."""
        if self.backend.takes_proposals:
            raise UserError(
                "this detector looks at proposals that come with the pictures, which a picture alone does not bring\n"
                "  give them to `backend`, or train one that makes its own, such as model=faster_rcnn_r50_fpn"
            )
        pixels_N3HW, sizes_N2 = stack([prepare(image, self.input) for image in images], self.divisor)
        try:
            raw = self.backend(pixels_N3HW, sizes_N2)
        except Exception as error:
            raise UserError(f"the exported detector failed on {pixels_N3HW.shape} pixels: {_first_line(error)}") from error
        return [
            self._found(raw, place, (int(height), int(width)), image.shape[:2], pixels_N3HW.shape[2], threshold)
            for place, (image, (height, width)) in enumerate(zip(images, sizes_N2.tolist(), strict=True))
        ]

    def _found(
        self, raw: RawDetections, place: int, size: tuple[int, int], out_size: tuple[int, int], padded: int, threshold: float
    ) -> Found:
        """One picture of a batch; `padded` is the height of the network's input."""
        semantic_HW = None
        if SEMANTIC in raw:
            logits_Chw = raw["semantic"][place]
            semantic_HW = semantic_map(logits_Chw, padded // logits_Chw.shape[1], size, out_size)
        if "scores" not in raw:
            nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
            return Found(*nothing, [], out_size, None, semantic_HW)
        count = int(raw["count"][place])
        rotated_D5 = None
        if "rotated" in raw:
            rotated_D5, rows = rotated_to_picture(raw["rotated"][place, :count], size, out_size)
            boxes_D4 = enclosing(rotated_D5).astype(np.float32)
        else:
            boxes_D4, rows = to_picture(raw["boxes"][place, :count], size, out_size)
        scores_D, labels_D = raw["scores"][place, :count][rows], raw["labels"][place, :count][rows]
        masks_DMM = raw["masks"][place, :count][rows] if "masks" in raw else None
        segments = None
        if self.merging is not None and masks_DMM is not None and semantic_HW is not None:
            segments = merged(masks_DMM, boxes_D4, scores_D, labels_D, semantic_HW, self.merging)
        good = scores_D >= threshold
        keypoints_D = None
        if "heatmaps" in raw:  # only of what is shown: decoding takes as long as the rest
            maps_DKMM, found_D4 = raw["heatmaps"][place, :count][rows][good], raw["boxes"][place, :count][rows][good]
            points_DK3 = to_picture_points(decode_keypoints(maps_DKMM, found_D4), size, out_size)
            keypoints_D = [own_K3[: len(self.keypoints[label])] for own_K3, label in zip(points_DK3, labels_D[good], strict=True)]
        names = [self.classes[label] for label in labels_D[good].tolist()]
        return Found(
            boxes_D4=boxes_D4[good],
            scores_D=scores_D[good],
            labels_D=labels_D[good],
            classes=names,
            size=out_size,
            masks_DMM=None if masks_DMM is None else masks_DMM[good],
            semantic_HW=semantic_HW,
            segments=segments,
            keypoints_D=keypoints_D,
            rotated_D5=None if rotated_D5 is None else rotated_D5[good],
        )


def _merging(content: Any) -> Merging | None:
    """deploy.json's `merging`."""
    if content is None:
        return None
    ids = tuple(map(int, content["stuff_ids"]))
    return Merging(float(content["overlap"]), float(content["stuff_area"]), float(content["score"]), ids)


def _digest(path: Path) -> str:
    """As pipeline.files.digest_file writes it; this room imports `errors` alone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
