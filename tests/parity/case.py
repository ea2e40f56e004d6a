"""A manifest of the kit as a model, a batch and its results, and comparison with the kit's numbers."""

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detector.build import build_detector
from pipeline.detector.compact import Rows
from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.detector.part import Part
from pipeline.detector.pretrained.checkpoint import is_constant
from pipeline.detector.weights import load_weights
from pipeline.structures import DensePoints, Detections, Images, Panoptic, Polygons, Result, Targets
from tests.parity.kit import Kit

ROUGH = {"point/accuracy": 5e-3}
"""It takes a label as inside where bilinear reading gave exactly one: the last bit of a box's corner decides."""
CLASSES = {
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
}
SEMANTIC_CLASSES = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


@dataclass
class Case:
    kit: Kit
    options: dict[str, Any]
    images: Images
    targets: Targets
    model: Detector
    features: dict[str, torch.Tensor]
    found: Result

    @property
    def detections(self) -> Detections:
        """The found boxes; skips the test where the architecture finds none."""
        if isinstance(self.found, Detections):
            return self.found
        if isinstance(self.found, Panoptic):
            return self.found.detections
        pytest.skip(f"{self.kit.name} finds no boxes")


def build(kit: Kit, cfg: ModelConfig, options: dict[str, Any]) -> Detector:
    classes = options.get(CLASSES.get(options["MODEL.META_ARCHITECTURE"], ""), 1)
    model = build_detector(cfg, classes, options.get(SEMANTIC_CLASSES, 0))
    given = {name: torch.from_numpy(value) for name, value in kit.weights()}
    own = model.state_dict()
    given = {name: value for name, value in given.items() if name in own or not is_constant(name)}
    load_weights(model, given, kit.name, may_miss=[name for name in own if name.endswith(".num_batches_tracked")])
    return model


def inputs(kit: Kit, divisor: int, ignored: int) -> tuple[Images, Targets]:
    """The kit's pictures and truths as a padded batch; pixels of maps that are padding are `ignored`."""
    pictures = [kit.arrays[f"inputs/image_{i}"] for i in range(len(kit.arrays["inputs/out_hw"]))]
    sizes = np.array([picture.shape[1:] for picture in pictures])
    height, width = -(-sizes.max(axis=0) // divisor) * divisor
    pixels = np.full((len(pictures), 3, height, width), 255, np.uint8)  # the padding's content must not matter
    for pixel, picture in zip(pixels, pictures, strict=True):
        pixel[:, : picture.shape[1], : picture.shape[2]] = picture
    truths = [(kit.arrays[f"gt/{i}/boxes"], kit.arrays[f"gt/{i}/classes"]) for i in range(len(pictures))]
    most = max(len(labels) for _, labels in truths) + 2
    boxes, labels = np.zeros((len(truths), most, 4), np.float32), np.full((len(truths), most), -1)
    for n, (own_boxes, own_labels) in enumerate(truths):
        boxes[n, : len(own_boxes)], labels[n, : len(own_labels)] = own_boxes, own_labels
    polygons = outlines(kit, len(truths), most, torch.from_numpy(sizes)) if "gt/0/poly_xy" in kit.arrays.files else None
    points = keypoints(kit, len(truths), most) if "gt/0/keypoints" in kit.arrays.files else None
    targets = Targets(
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        polygons,
        keypoints_NGK3=points,
        semantic_NHW=maps(kit, len(truths), height, width, ignored),
    )
    targets.points = dense_points(kit, len(truths), most) if "gt/0/dp_x" in kit.arrays.files else None
    return Images(torch.from_numpy(pixels), torch.from_numpy(sizes), proposals(kit, len(truths))), targets


def proposals(kit: Kit, pictures: int) -> torch.Tensor | None:
    """The kit's precomputed proposals by falling logit, where it has some, with a padded row."""
    if "gt/0/prop_boxes" not in kit.arrays.files:
        return None
    boxes = []
    for i in range(pictures):
        order = np.argsort(-kit.arrays[f"gt/{i}/prop_logits"], kind="stable")
        boxes.append(torch.from_numpy(kit.arrays[f"gt/{i}/prop_boxes"][order].astype(np.float32)))
    most = max(map(len, boxes)) + 1
    return torch.stack([torch.nn.functional.pad(own, (0, 0, 0, most - len(own))) for own in boxes])


def maps(kit: Kit, pictures: int, height: int, width: int, ignored: int) -> torch.Tensor | None:
    """The kit's semantic maps, padded."""
    if "gt/0/sem_seg" not in kit.arrays.files:
        return None
    padded = np.full((pictures, height, width), ignored, np.int64)
    for n in range(pictures):
        own = kit.arrays[f"gt/{n}/sem_seg"]
        padded[n, : own.shape[0], : own.shape[1]] = own
    return torch.from_numpy(padded)


def keypoints(kit: Kit, pictures: int, most: int) -> torch.Tensor:
    """The kit's keypoints, padded."""
    given = [kit.arrays[f"gt/{i}/keypoints"] for i in range(pictures)]
    points = np.zeros((pictures, most, *given[0].shape[1:]), np.float32)
    for row, own in zip(points, given, strict=True):
        row[: len(own)] = own
    return torch.from_numpy(points)


class KitPart(Part):
    """A whole step whose uniform draws are the kit's: the i-th of a forward pass, for the rows that are real."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "drawn", [])

    def points(self, rows: Rows, points: int, generator: torch.Generator | None) -> torch.Tensor:
        assert rows.kept_M is not None, "the kit draws for real rows alone"
        number = len(self.drawn)  # type: ignore[attr-defined]
        self.drawn.append(number)  # type: ignore[attr-defined]
        seed = zlib.crc32(f"rand{number}".encode())
        shape = (len(rows.kept_M), points, 2)
        return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random(shape).astype(np.float32))


def outlines(kit: Kit, pictures: int, most: int, sizes: torch.Tensor) -> Polygons:
    """The kit's polygons, one per truth, as the pools of a padded batch."""
    points, lengths, owned = [], [], np.zeros((pictures, most), np.int64)
    for i in range(pictures):
        points.append(kit.arrays[f"gt/{i}/poly_xy"].reshape(-1, 2))
        numbers = kit.arrays[f"gt/{i}/poly_len"]
        lengths += (numbers // 2 if numbers.sum() == 2 * len(points[-1]) else numbers).tolist()
        owned[i, : len(numbers)] = 1
    starts = [np.cumsum([0, *values]) for values in (lengths, owned.reshape(-1).tolist())]
    return Polygons(torch.from_numpy(np.concatenate(points)), *map(torch.from_numpy, starts), sizes)


def dense_points(kit: Kit, pictures: int, most: int) -> DensePoints:
    """The kit's dense pose labels: every truth has as many points."""

    def pool(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([kit.arrays[f"gt/{i}/dp_{name}"] for i in range(pictures)]))

    rows, first = np.full((pictures, most), -1), 0
    for i in range(pictures):
        count = len(kit.arrays[f"gt/{i}/dp_x"])
        rows[i, :count], first = np.arange(first, first + count), first + count
    xy, uv = (torch.stack([pool(a), pool(b)], dim=-1) for a, b in ("xy", "UV"))
    return DensePoints(xy, pool("I"), uv, pool("S"), torch.from_numpy(rows))


def close(actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, what: str) -> None:
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=rtol, atol=atol, err_msg=what
    )


def compare_losses(kit: Kit, mode: str, losses: Losses) -> None:
    assert losses.finite_N.all()
    expected = {key.split("/")[-1]: kit.arrays[key] for key in kit.arrays.files if key.startswith(f"{mode}/loss/")}
    assert losses.terms.keys() == expected.keys()
    for name, value in losses.terms.items():
        close(value.detach(), expected[name], rtol=1e-5, what=f"{mode} {name}")
    close(losses.total().detach(), kit.arrays[f"{mode}/total"], rtol=1e-5, what=f"{mode} total")
    for name, value in losses.counts.items():
        close(value, kit.arrays[f"{mode}/storage/{name}"], rtol=ROUGH.get(name, 1e-6), what=f"{mode} {name}")


def in_index_order(cfg: ModelConfig) -> ModelConfig:
    """The same settings with sampling by index, as the kit's training runs drew."""
    for stage in ("rpn", "roi"):
        if (part := getattr(cfg, stage, None)) is not None:
            cfg = replace(cfg, **{stage: replace(part, sample=replace(part.sample, order="first"))})
    return cfg
