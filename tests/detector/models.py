"""Small detectors and batches that the tests of this folder share."""

from dataclasses import replace
from pathlib import Path

import pydantic
import torch
import yaml

from pipeline.detector.build import build_detector
from pipeline.detector.config import FasterRCNNConfig, ModelConfig, RetinaNetConfig
from pipeline.detector.detector import Detector
from pipeline.structures import DensePoints, Images, Polygons, Targets

SEMANTIC = 4
"""Semantic classes of the detectors that have some."""
CONF = Path(__file__).resolve().parents[2] / "conf" / "model"


def read_config(name: str) -> ModelConfig:
    """conf/model/<name>.yaml, validated."""
    return pydantic.TypeAdapter(ModelConfig).validate_python(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def tiny_two_stage() -> FasterRCNNConfig:
    cfg = read_config("faster_rcnn_tiny")
    assert isinstance(cfg, FasterRCNNConfig)
    return cfg


def tiny_masks() -> FasterRCNNConfig:
    cfg = read_config("mask_rcnn_tiny")
    assert isinstance(cfg, FasterRCNNConfig)
    return cfg


def tiny_federated() -> FasterRCNNConfig:
    """Masks with sigmoids over drawn classes, as for LVIS."""
    cfg, many = tiny_masks(), read_config("mask_rcnn_r50_fpn_lvis")
    assert isinstance(many, FasterRCNNConfig)
    return replace(cfg, roi=replace(cfg.roi, class_loss=many.roi.class_loss))


def tiny_one_stage() -> RetinaNetConfig:
    cfg = read_config("retinanet_tiny")
    assert isinstance(cfg, RetinaNetConfig)
    return cfg


def made(cfg: ModelConfig, classes: int) -> Detector:
    """The model, with `SEMANTIC` semantic classes where it has a semantic branch."""
    return build_detector(cfg, classes, SEMANTIC)


def lively(cfg: ModelConfig, classes: int = 3, seed: int = 0) -> Detector:
    """A model whose random weights give many different scores, so that thresholds, NMS and limits all have work."""
    torch.manual_seed(seed)
    model = made(cfg, classes)
    model.train()
    with torch.no_grad():
        model.features(batch(model, [(64, 64)])[0])  # moves batch statistics off their defaults
        for name, parameter in model.named_parameters():
            if name.endswith(
                (
                    "objectness_logits.weight",
                    "cls_score.weight",
                    "anchor_deltas.weight",
                    "bbox_pred.weight",
                    "mask_head.predictor.weight",
                    "sem_seg_head.predictor.weight",
                    "coarse_head.prediction.weight",
                    "point_head.predictor.weight",
                    "keypoint_head.score_lowres.weight",
                )
            ):
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
            if name == "head.cls_score.bias":
                parameter.fill_(-3)
    return model.eval()


def batch(
    model: Detector, sizes: list[tuple[int, int]], truths: int = 4, classes: int = 3, seed: int = 1
) -> tuple[Images, Targets]:
    """Random pictures of the sizes, padded to the divisor, and up to `truths` diamonds each; image 0 has the most."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor(sizes)
    height, width = (-(-int(side) // model.divisor) * model.divisor for side in extent.amax(0))
    pixels = torch.randint(0, 256, (len(sizes), 3, height, width), dtype=torch.uint8, generator=generator)
    boxes, labels = torch.zeros(len(sizes), max(truths, 1), 4), torch.full((len(sizes), max(truths, 1)), -1)
    for n, (h, w) in enumerate(sizes):
        count = max(truths - n, 0)
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([w, h]) * 0.6
        side = torch.rand(count, 2, generator=generator) * torch.tensor([w, h]) * 0.35 + 3
        boxes[n, :count] = torch.cat([corner, corner + side], 1)
        labels[n, :count] = torch.randint(0, classes, (count,), generator=generator)
    images = Images(pixels, extent, proposals(boxes, extent, generator))
    return images, taught(boxes, labels, height, width, generator)


def taught(
    boxes_NG4: torch.Tensor, labels_NG: torch.Tensor, height: int, width: int, generator: torch.Generator | None = None
) -> Targets:
    """Truths of these boxes for every task that there is."""
    return Targets(
        boxes_NG4,
        labels_NG,
        replace(diamonds(boxes_NG4, labels_NG), sizes_N2=torch.tensor([[height, width]] * len(boxes_NG4))),
        keypoints_NGK3=corners(boxes_NG4, labels_NG),
        semantic_NHW=painted(boxes_NG4, labels_NG, height, width),
        rotated_NG5=turned(boxes_NG4),
        points=dense_points(labels_NG, generator or torch.Generator().manual_seed(0)),
    )


def corners(boxes_NG4: torch.Tensor, labels_NG: torch.Tensor) -> torch.Tensor:
    """Three keypoints per object: its top left corner seen, one near its middle hidden, its bottom right corner not labelled."""
    first, last = boxes_NG4[..., :2], boxes_NG4[..., 2:]
    visibility = torch.tensor([2.0, 1.0, 0.0]).expand(*labels_NG.shape, 3) * (labels_NG >= 0).unsqueeze(-1)
    return torch.cat([torch.stack([first, 0.63 * first + 0.37 * last, last], dim=2), visibility.unsqueeze(-1)], dim=-1)


def painted(boxes_NG4: torch.Tensor, labels_NG: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The class of the last box that holds a pixel's centre; 255, which teaches nothing, elsewhere."""
    x1, y1, x2, y2 = (side[..., None, None] for side in boxes_NG4.unbind(-1))
    y_H1, x_W = torch.arange(height).view(-1, 1) + 0.5, torch.arange(width) + 0.5
    inside_NGHW = (x_W >= x1) & (x_W < x2) & (y_H1 >= y1) & (y_H1 < y2) & (labels_NG >= 0)[..., None, None]
    class_NGHW = torch.where(inside_NGHW, labels_NG[..., None, None], -1)
    last_NHW = (inside_NGHW * torch.arange(1, inside_NGHW.shape[1] + 1).view(1, -1, 1, 1)).amax(dim=1)
    found_NHW = class_NGHW.gather(1, (last_NHW - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(last_NHW > 0, found_NHW, 255).to(torch.uint8)


def turned(boxes_NG4: torch.Tensor) -> torch.Tensor:
    """The boxes as rotated ones, each turned by another angle."""
    centre, size = (boxes_NG4[..., :2] + boxes_NG4[..., 2:]) / 2, boxes_NG4[..., 2:] - boxes_NG4[..., :2]
    angle = torch.linspace(-60, 60, boxes_NG4.shape[1]).view(1, -1, 1).expand(len(boxes_NG4), -1, 1)
    return torch.cat([centre, size, torch.where(size[..., :1] > 0, angle, torch.zeros_like(angle))], dim=-1)


def proposals(boxes_NG4: torch.Tensor, sizes_N2: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """20 random boxes per picture, the truths moved a little, and a row of padding."""
    spread = sizes_N2.flip(1).repeat(1, 2).unsqueeze(1).float()
    corner = torch.rand(len(boxes_NG4), 20, 2, generator=generator)
    random = torch.cat([corner, corner + 0.5 * torch.rand(len(boxes_NG4), 20, 2, generator=generator)], dim=2) * spread
    near = boxes_NG4 + torch.rand(boxes_NG4.shape, generator=generator) * (boxes_NG4[..., 2:] > 0).any(dim=2, keepdim=True)
    return torch.cat([near, random, torch.zeros_like(random[:, :1])], dim=1)


def diamonds(boxes_NG4: torch.Tensor, labels_NG: torch.Tensor) -> Polygons:
    """A diamond in every real box."""
    real = labels_NG.flatten() >= 0
    x1, y1, x2, y2 = boxes_NG4.flatten(0, 1)[real].double().unbind(1)
    corners = [((x1 + x2) / 2, y1), (x2, (y1 + y2) / 2), ((x1 + x2) / 2, y2), (x1, (y1 + y2) / 2)]
    points = torch.stack([torch.stack(corner, 1) for corner in corners], 1).flatten(0, 1)
    owned = torch.cat([torch.zeros(1, dtype=torch.int64), real.to(torch.int64).cumsum(0)])
    return Polygons(points, torch.arange(int(owned[-1]) + 1) * 4, owned)


def dense_points(labels_NG: torch.Tensor, generator: torch.Generator, parts: int = 4) -> DensePoints:
    """Points all over the box of every second real truth, and coarse parts at random."""
    rows = torch.cumsum((labels_NG >= 0).flatten(), 0).view_as(labels_NG) - 1
    rows = torch.where((labels_NG >= 0) & (rows % 2 == 0), rows // 2, -1)
    count = max(1, int(rows.max()) + 1)
    uv = torch.rand(count, 9, 2, generator=generator)
    return DensePoints(
        points_TP2=torch.rand(count, 9, 2, generator=generator) * DensePoints.FRAME,
        parts_TP=torch.randint(-1, parts + 1, (count, 9), generator=generator),
        uv_TP2=uv,
        coarse_TSS=torch.randint(0, parts + 1, (count, 32, 32), generator=generator).to(torch.uint8),
        row_NG=rows,
    )
