"""Every manifest of the kit through the builder: features, anchors, proposals, detections, losses and gradients.

Tolerances are those of the kit's README. Detections match by index.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.detector.postprocess import paste_masks, postprocess
from pipeline.detector.pretrained.detectron2 import NotBuiltError, translate
from pipeline.detector.weights import load_weights
from pipeline.structures import Detections, Images, Polygons, Targets
from tests.parity.kit import Kit

pytestmark = pytest.mark.parity

CLASSES = {"RetinaNet": "MODEL.RETINANET.NUM_CLASSES", "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES"}


@dataclass
class Case:
    kit: Kit
    options: dict[str, Any]
    images: Images
    targets: Targets
    model: Detector
    features: dict[str, torch.Tensor]
    detections: Detections


@pytest.fixture(scope="module")
def case(architecture: str, kit_folder: Path) -> Iterator[Case]:
    kit = Kit(kit_folder, architecture)
    options = kit.manifest["config"]
    try:
        cfg = translate(options)
    except NotBuiltError as error:
        pytest.skip(f"architecture not built yet (issue 4): {architecture}: {error}")
    model = build(kit, cfg, options).eval()
    images, targets = inputs(kit, model.divisor)
    with torch.no_grad():
        yield Case(kit, options, images, targets, model, model.features(images), model.detect(images))


def build(kit: Kit, cfg: ModelConfig, options: dict[str, Any]) -> Detector:
    classes = options[CLASSES[options["MODEL.META_ARCHITECTURE"]]] if cfg.kind != "rpn" else 1
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
    targets = Targets(torch.from_numpy(boxes), torch.from_numpy(labels), polygons)
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


def close(actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, what: str) -> None:
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=rtol, atol=atol, err_msg=what
    )


def test_features(case: Case) -> None:
    wanted = {key.split("/")[1] for key in case.kit.arrays.files if key.startswith("feat/")}
    assert wanted <= case.features.keys()
    for level in sorted(wanted):
        feature, expected = case.features[level], case.kit.arrays[f"feat/{level}/strided"]
        assert list(feature.shape) == case.kit.arrays[f"feat/{level}/shape"].tolist()
        strided = feature[:, :: max(1, feature.shape[1] // 8), ::4, ::4]
        close(strided, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()), what=level)
        stats = [float(s) for s in (feature.mean(), feature.std(), feature.min(), feature.max())]
        close(stats, case.kit.arrays[f"feat/{level}/stats"], rtol=1e-4, atol=1e-4 * float(feature.std()), what=f"{level} stats")


def test_anchors(case: Case) -> None:
    proposer = getattr(case.model, "proposal_generator", case.model)
    anchors = proposer.anchors([case.features[level] for level in proposer.levels])
    for level, boxes in enumerate(anchors):
        expected = {key: case.kit.arrays[f"anchors/{level}/{key}"] for key in ("first20", "last", "count", "sum")}
        assert len(boxes) == int(expected["count"])
        close(boxes[:20], expected["first20"], atol=1e-4, what="first anchors")
        close(boxes[-1], expected["last"], atol=1e-4, what="last anchor")
        close(boxes.double().sum(0), expected["sum"], rtol=1e-6, atol=1, what="sum of anchors")


def test_proposals(case: Case) -> None:
    if "proposals/0/boxes" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no proposals")
    with torch.no_grad():
        found = case.model.proposal_generator.detect(case.features, case.images.sizes_N2)  # type: ignore[operator, union-attr]
    assert found.finite_N.all()
    for i in range(len(found.boxes_NP4)):
        count = int(found.valid_NP[i].sum())
        expected = case.kit.arrays[f"proposals/{i}/boxes"]
        assert count == len(expected)
        close(found.boxes_NP4[i, :count], expected, atol=5e-3, what=f"proposals of image {i}")
        close(found.logits_NP[i, :count], case.kit.arrays[f"proposals/{i}/logits"], atol=1e-4, what=f"logits of image {i}")


@pytest.mark.parametrize("stage", ["infer", "final"])
def test_detections(case: Case, stage: str) -> None:
    found = case.detections
    if stage == "final":
        found = postprocess(found, case.images.sizes_N2, torch.from_numpy(case.kit.arrays["inputs/out_hw"]))
    assert found.finite_N.all()
    if f"{stage}/0/boxes" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no {stage}")
    for i in range(len(found.boxes_ND4)):
        count, expected = int(found.count_N[i]), case.kit.arrays[f"{stage}/{i}/boxes"]
        assert count == len(expected)
        close(found.boxes_ND4[i, :count], expected, atol=5e-3, what=f"boxes of image {i}")
        if f"{stage}/{i}/scores" in case.kit.arrays.files:
            close(found.scores_ND[i, :count], case.kit.arrays[f"{stage}/{i}/scores"], atol=1e-4, what=f"scores of image {i}")
            assert found.labels_ND[i, :count].tolist() == case.kit.arrays[f"{stage}/{i}/classes"].tolist()
        else:  # proposals keep their logits
            logits = torch.logit(found.scores_ND[i, :count].double())
            close(logits, case.kit.arrays[f"{stage}/{i}/logits"], rtol=1e-3, atol=1e-3, what=f"logits of image {i}")


def test_masks(case: Case) -> None:
    """Probabilities in the boxes' frames, then full pictures: of an instance's pixels at most 0.05 % may flip, or one."""
    if case.detections.masks_NDMM is None:
        pytest.skip(f"{case.kit.name} has no mask head")
    out_sizes = torch.from_numpy(case.kit.arrays["inputs/out_hw"])
    final = postprocess(case.detections, case.images.sizes_N2, out_sizes)
    assert final.masks_NDMM is not None
    for i, (height, width) in enumerate(out_sizes.tolist()):
        count, masks = int(case.detections.count_N[i]), case.detections.masks_NDMM[i]
        close(masks[:12], case.kit.arrays[f"infer/{i}/mask_probs_first12"], atol=1e-4, what=f"masks of image {i}")
        stats = torch.stack([masks[:count].mean(dim=(1, 2)), masks[:count].flatten(1).std(dim=1, correction=0)], dim=1)
        close(stats, case.kit.arrays[f"infer/{i}/mask_probs_mean_std"], atol=1e-4, what=f"mean and deviation of image {i}")
        assert not masks[count:].any()
        count = int(final.count_N[i])
        pasted = paste_masks(final.masks_NDMM[i, :count], final.boxes_ND4[i, :count], height, width)
        shape = case.kit.arrays[f"final/{i}/masks_shape"]
        expected = np.unpackbits(case.kit.arrays[f"final/{i}/masks_packed"])[: np.prod(shape)].reshape(shape).astype(bool)
        sides = (final.boxes_ND4[i, :count, 2:] - final.boxes_ND4[i, :count, :2]).prod(dim=1).numpy()
        flipped = (pasted.numpy() != expected).sum(axis=(1, 2))
        assert (flipped <= np.maximum(1, 0.0005 * sides)).all() and flipped.sum() <= 0.0005 * sides.sum(), (
            f"image {i}: {flipped.max()} pixels of a mask differ"
        )


@pytest.mark.parametrize("mode", ["train_first", "train_all"])
def test_losses_and_gradients(case: Case, mode: str) -> None:
    if f"{mode}/total" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no {mode}")
    options = dict(case.options)
    if mode == "train_all":
        pairs = case.kit.manifest["train_all_overrides"]
        options |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    model = build(case.kit, in_index_order(translate(options)), options).train()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(case.kit.manifest["trainable"])
    with torch.enable_grad():
        losses = model.losses(case.images, case.targets)
        losses.total().backward()
    compare_losses(case.kit, mode, losses)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            expected = float(case.kit.arrays[f"{mode}/gradnorm/{name}"])
            close(parameter.grad.double().norm(), expected, rtol=1e-3, atol=1e-9, what=f"{mode} gradient norm of {name}")


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
