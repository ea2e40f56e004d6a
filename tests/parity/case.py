"""A manifest of the kit as a model, a batch and its results, and comparison with the kit's numbers."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.detector.weights import load_weights
from pipeline.structures import DensePoints, Images, Polygons, Result, Targets
from tests.parity.kit import Kit

CLASSES = {"RetinaNet": "MODEL.RETINANET.NUM_CLASSES", "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES"}


@dataclass
class Case:
    kit: Kit
    options: dict[str, Any]
    images: Images
    targets: Targets
    model: Detector
    features: dict[str, torch.Tensor]
    found: Result


def build(kit: Kit, cfg: ModelConfig, options: dict[str, Any]) -> Detector:
    classes = options.get(CLASSES.get(options["MODEL.META_ARCHITECTURE"], ""), 1)
    model = build_detector(cfg, classes)
    load_weights(model, {name: torch.from_numpy(value) for name, value in kit.weights()}, kit.name)
    return model


def inputs(kit: Kit, divisor: int) -> tuple[Images, Targets]:
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
    polygons = outlines(kit, len(truths), most) if "gt/0/poly_xy" in kit.arrays.files else None
    points = dense_points(kit, len(truths), most) if "gt/0/dp_x" in kit.arrays.files else None
    targets = Targets(torch.from_numpy(boxes), torch.from_numpy(labels), polygons, points=points)
    return Images(torch.from_numpy(pixels), torch.from_numpy(sizes)), targets


def outlines(kit: Kit, pictures: int, most: int) -> Polygons:
    """The kit's polygons, one per truth, as the pools of a padded batch."""
    points, lengths, owned = [], [], np.zeros((pictures, most), np.int64)
    for i in range(pictures):
        points.append(kit.arrays[f"gt/{i}/poly_xy"].reshape(-1, 2))
        numbers = kit.arrays[f"gt/{i}/poly_len"]
        lengths += (numbers // 2 if numbers.sum() == 2 * len(points[-1]) else numbers).tolist()
        owned[i, : len(numbers)] = 1
    starts = [np.cumsum([0, *values]) for values in (lengths, owned.reshape(-1).tolist())]
    return Polygons(torch.from_numpy(np.concatenate(points)), *map(torch.from_numpy, starts))


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
        close(value, kit.arrays[f"{mode}/storage/{name}"], rtol=1e-6, what=f"{mode} {name}")


def in_index_order(cfg: ModelConfig) -> ModelConfig:
    """The same settings with sampling by index, as the kit's training runs drew."""
    if cfg.kind == "retinanet":
        return cfg
    cfg = replace(cfg, rpn=replace(cfg.rpn, sample=replace(cfg.rpn.sample, order="first")))
    if cfg.kind == "faster_rcnn":
        cfg = replace(cfg, roi=replace(cfg.roi, sample=replace(cfg.roi.sample, order="first")))
    return cfg
