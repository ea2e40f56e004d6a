"""A small clean dataset to plant faults in."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.dataset import Category, Dataset, DatasetInfo, Split
from pipeline.detector.config import ModelConfig
from pipeline.labels.check import Severity
from pipeline.labels.checks import CHECKS
from pipeline.labels.columns import Columns, Finding
from pipeline.labels.config import Gate, Page, ValidateConfig
from pipeline.labels.limits import Limits
from pipeline.labels.mask_fixes import area_of
from pipeline.labels.pictures import inspect
from pipeline.layout import Layout
from pipeline.settings import ValidateStage

CLASSES = {3: "cat", 7: "dog"}


class Planted:
    """Pictures of 100 x 80 noise on disk, annotations in memory; `dataset()` makes the columns."""

    def __init__(self, folder: Path, pictures: dict[str, list[str]] | None = None) -> None:
        self.folder = folder
        self.stated: int | None = None
        self.network: tuple[int, int] | None = None
        self.classes = [Category(i, name) for i, name in CLASSES.items()]
        self.unlisted: tuple[str, ...] = ()
        self.images: dict[str, list[dict[str, Any]]] = {}
        self.annotations: dict[str, list[dict[str, Any]]] = {}
        for split, names in (pictures or {"train": ["a.png", "b.png"], "val": ["c.png"]}).items():
            self.images[split], self.annotations[split] = [], []
            for name in names:
                self.picture(split, name)
                self.box(split, name, (10, 10, 40, 40), 3)
                self.box(split, name, (50, 20, 90, 70), 7)

    def picture(self, split: str, name: str, stored: tuple[int, int] = (100, 80), seed: int | None = None, **extra: Any) -> Path:
        """A picture of noise, its own for every name unless `seed` is given."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(name.encode()) if seed is None else seed).integers(0, 255, (80, 100, 3), np.uint8)
        Image.fromarray(noise).save(path)
        self.images[split].append({"name": name, "size": stored, "extra": extra})
        return path

    def box(self, split: str, picture: str | None, box: tuple[float, ...], category: int, **more: Any) -> int:
        """An annotation; returns its id, which counts from 1 within the split. `more`: polygons, rle, keypoints, area ..."""
        identity = len(self.annotations[split]) + 1
        self.annotations[split].append({"id": identity, "picture": picture, "box": box, "category": category, **more})
        return identity

    def mask(self, split: str, picture: str, polygon: tuple[float, ...], *others: tuple[float, ...], **more: Any) -> int:
        """An annotation with polygons, the box around them and the area of the first."""
        flat = np.array([*polygon, *(value for other in others for value in other)], np.float64).reshape(-1, 2)
        box = (*np.nanmin(flat, axis=0).tolist(), *np.nanmax(flat, axis=0).tolist())
        given = {"box": box, "category": 3, "polygons": [polygon, *others], "area": area_of(np.reshape(polygon, (-1, 2)))}
        chosen = given | more
        return self.box(split, picture, chosen.pop("box"), chosen.pop("category"), **chosen)

    def dataset(self) -> Dataset:
        """As `open_dataset` would give it."""
        info = DatasetInfo(tuple(self.classes), "planted", "by hand", unlisted=self.unlisted, stated_classes=self.stated)
        splits = {}
        for name, images in self.images.items():
            images = sorted(images, key=lambda image: image["name"])
            names = [image["name"] for image in images]
            table = ImageTable(
                np.array([image.get("id", number) for number, image in enumerate(images, 1)], np.int64),
                names,
                np.array([image["size"][0] for image in images], np.int32),
                np.array([image["size"][1] for image in images], np.int32),
                {row: image["extra"] for row, image in enumerate(images) if image["extra"]},
            )
            splits[name] = Split(name, table, self._columns(self.annotations[name], names), self.folder)
        return Dataset(info, splits)

    def columns(self, max_pixels: int = 10**8) -> Columns:
        """What checks see."""
        dataset = self.dataset()
        return Columns(dataset, inspect(dataset, max_pixels), self.network)

    def found(self, code: str, **limits: float) -> list[Finding]:
        """The findings of one check."""
        return self.found_by([code], **limits)

    def found_by(self, codes: list[str], **limits: float) -> list[Finding]:
        """The findings of several checks; the pictures are looked at once."""
        shipped = yaml.safe_load(Path("conf/validate/default.yaml").read_text())["limits"]
        chosen = Limits(**(shipped | limits))
        data, checks = self.columns(chosen.max_pixels), [CHECKS[code](Severity.ERROR, chosen) for code in codes]
        return [finding for check in checks for finding in data.listed(check.find(data))]

    def _columns(self, records: list[dict[str, Any]], names: list[str]) -> Annotations:
        rows = sorted(records, key=lambda r: (names.index(r["picture"]) if r["picture"] else -1, r["id"]))
        category_A = np.array([r["category"] for r in rows], np.int64)
        boxes_A4 = np.array([r["box"] for r in rows], np.float64).reshape(-1, 4)
        known = [category.id for category in self.classes]
        area_A = (boxes_A4[:, 2:] - boxes_A4[:, :2]).prod(axis=1)
        most = max((len(r.get("keypoints", ())) // 3 for r in rows), default=0)
        points_AK3 = np.full((len(rows), most, 3), np.nan, np.float32)
        for row, r in enumerate(rows):
            points_AK3[row, : len(r.get("keypoints", ())) // 3] = np.reshape(r.get("keypoints", ()), (-1, 3))
        return Annotations(
            ids_A=np.array([r["id"] for r in rows], np.int64),
            image_A=np.array([names.index(r["picture"]) if r["picture"] else -1 for r in rows], np.int32),
            category_A=category_A,
            label_A=np.array([known.index(c) if c in known else -1 for c in category_A.tolist()], np.int64),
            boxes_A4=boxes_A4,
            area_A=np.array([r.get("area", area) for r, area in zip(rows, area_A.tolist(), strict=True)], np.float64),
            crowd_A=np.array([r.get("crowd", False) for r in rows], np.bool_),
            source_ids=[r.get("source_id") for r in rows],
            polygons=PolygonPool.of([[np.reshape(flat, (-1, 2)) for flat in r.get("polygons", ())] for r in rows]),
            rle={row: r["rle"] for row, r in enumerate(rows) if "rle" in r},
            keypoints_AK3=points_AK3 if most else None,
            extra={row: r["extra"] for row, r in enumerate(rows) if "extra" in r},
            rotated_A5=np.array([r.get("rotated", [np.nan] * 5) for r in rows], np.float64).reshape(-1, 5),
        )


def settings(fix: str = "safe", gate: float = 1.0, more: dict[str, float] | None = None, **severity: str) -> ValidateConfig:
    """The shipped settings with another fix, gate (errors' shares, and `more` by name; the rest never stop) and severities
    (underscores for the dashes of codes)."""
    shipped = yaml.safe_load(Path("conf/validate/default.yaml").read_text())
    chosen = shipped["severity"] | {code.replace("_", "-"): value for code, value in severity.items()}
    return ValidateConfig(
        fix=fix,  # type: ignore[arg-type]
        gate=Gate(**dict.fromkeys(shipped["gate"], 1.0) | {"annotations": gate, "pictures": gate} | (more or {})),
        limits=Limits(**shipped["limits"]),
        page=Page(**shipped["page"]),
        severity={code: Severity(value) for code, value in chosen.items()},
    )


def validate_stage(layout: Layout, cfg: ValidateConfig) -> ValidateStage:
    """The stage as for the smallest model, whose input has a shorter side of 64 pixels."""
    from pydantic import TypeAdapter

    model = TypeAdapter[ModelConfig](ModelConfig).validate_python(
        yaml.safe_load(Path("conf/model/faster_rcnn_tiny.yaml").read_text())
    )
    return ValidateStage(layout=layout, validate=cfg, model=model)
