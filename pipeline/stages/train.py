"""Train: a detector with as many classes as the dataset has, from scratch or from pretrained weights."""

from dataclasses import asdict
from functools import partial

import torch

from pipeline import tracking
from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Dataset, Split, open_dataset
from pipeline.data.loader import TrainingPictures, training_batches
from pipeline.data.masks import require_masks
from pipeline.detector.build import build_detector
from pipeline.detector.config import learns_masks
from pipeline.detector.pretrained.backbone import load_pretrained
from pipeline.detector.weights import save_detector, save_training
from pipeline.errors import DataError
from pipeline.evaluation.coco import evaluate_all
from pipeline.evaluation.inference import TorchBackend, predict_split
from pipeline.evaluation.truth import Truth
from pipeline.files import staged, write_json
from pipeline.progress import Progress
from pipeline.settings import TrainStage
from pipeline.training.device import prepare_device
from pipeline.training.loop import train

SHOWN = ("train/loss", "train/lr", "train/pictures_per_second", "val/bbox/AP", "val/bbox/AP50", "val/segm/AP")
"""Figures of the progress line; all of them go to the curves."""


def run(cfg: TrainStage) -> None:
    """data/validated -> models/detector, reports/train.

    NonFiniteLoss names the batch's pictures; models/detector is then left as it was.
    """
    device = prepare_device(cfg.compute, cfg.seed)
    dataset = open_dataset(cfg.layout.validated)
    if learns_masks(cfg.model):
        for name in ("train", "val"):
            require_masks(dataset.split(name), cfg.layout.validated)
    pictures = training_pictures(dataset.split("train"), cfg)
    model = build_detector(cfg.model, num_classes=len(dataset.classes))
    loaded = load_pretrained(model, cfg.model)
    print(f"train: {len(dataset.classes)} classes; backbone weights: {loaded.source if loaded else 'random'}", flush=True)
    model.to(device)
    batches = training_batches(pictures, cfg.train.batch, model.divisor, 0, cfg.train.steps, cfg.compute.workers)

    final: dict[str, float] = {}
    curves = tracking.curves()
    with Progress("train", cfg.train.steps) as progress:

        def log(step: int, figures: dict[str, float]) -> None:
            curves.log(step, figures)
            progress.show(
                step, "  ".join(f"{name.split('/', 1)[1]} {value:.4g}" for name, value in figures.items() if name in SHOWN)
            )
            final.update(figures)

        train(model, batches, cfg.train, device, cfg.seed, log, partial(validation, model, dataset, cfg))

    with staged(cfg.layout.detector) as out:
        save_detector(out, model, cfg.model, [{"id": category.id, "name": category.name} for category in dataset.info.categories])
        save_training(out, asdict(cfg.train), cfg.seed, dataset.info.digest)
    write_json(
        cfg.layout.reports("train") / "metrics.json", {name: value for name, value in final.items() if is_reproducible(name)}
    )


def training_pictures(split: Split, cfg: TrainStage) -> TrainingPictures:
    """The endless stream of augmented training pictures."""
    if not split.images.file_names:
        raise DataError(cfg.layout.validated, "the train split holds no picture", "give it more data, or lower dataset.split.val")
    augment = cfg.train.augment
    augmentation = Augmentation(
        cfg.model.input.short_side, cfg.model.input.long_side, augment.flip, augment.scale, augment.crop, augment.crop_least
    )
    return TrainingPictures(split, augmentation, cfg.model.input.channels, cfg.seed, masks=learns_masks(cfg.model))


def validation(model: torch.nn.Module, dataset: Dataset, cfg: TrainStage, step: int) -> dict[str, float]:
    """AP and AP50 of the model as it is now, on the validation split: of boxes, and of masks where it finds them."""
    backend = TorchBackend(model, cfg.compute.device)
    ids = [category.id for category in dataset.info.categories]
    split = dataset.split("val")
    predictions = predict_split(backend, split, cfg.model.input, model.divisor, cfg.train.batch, ids)  # type: ignore[arg-type]
    truth = Truth.of(split, dataset.info.categories, masks=predictions.masks_D is not None)
    return {
        f"val/{task}/{name}": metrics.numbers[f"{task}/{name}"]
        for task, metrics in evaluate_all(truth, predictions, "hotcoco").items()
        for name in ("AP", "AP50")
        if metrics.numbers[f"{task}/{name}"] >= 0
    }


def is_reproducible(name: str) -> bool:
    """Whether a rerun gives the same figure: everything but speed."""
    return not name.endswith("per_second")
