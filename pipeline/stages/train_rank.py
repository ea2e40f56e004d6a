"""One process of train: the only one, or a rank among several. The first one writes the results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Category, Dataset, Split, open_dataset
from pipeline.data.keypoints import mirror_table, pictures_with_keypoints
from pipeline.data.loader import Batch, TrainingPictures, training_batches
from pipeline.data.needs import require_labels, require_proposals
from pipeline.data.sampler import StepSampler, pictures_per_class, repeat_factors
from pipeline.detector.build import build_detector
from pipeline.detector.classification import tell_frequencies
from pipeline.detector.config import takes_proposals
from pipeline.detector.pretrained.backbone import load_pretrained
from pipeline.detector.pretrained.checkpoint import load_checkpoint
from pipeline.detector.settings.keypoints import KeypointConfig
from pipeline.detector.weights import save_detector, save_training
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.evaluation.inference import TorchBackend, merging_of, predict_split
from pipeline.evaluation.tasks import evaluate_all
from pipeline.evaluation.truth import CategoryLike, Truth, found_categories
from pipeline.files import locked, staged, write_atomically, write_json
from pipeline.layout import Layout
from pipeline.settings import TrainStage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.device import prepare_device
from pipeline.training.distributed import ALONE, Ranks, joined
from pipeline.training.launch import report
from pipeline.training.lineage import save_pictures
from pipeline.training.loop import train
from pipeline.training.sync_norm import sync_norms

PATIENCE = 30.0
"""Seconds that a new run waits for the processes of a killed one to be gone."""


def train_alone(cfg: TrainStage, work: Path, show: Callable[[int, Mapping[str, float]], None]) -> None:
    """The whole training in this process."""
    with locked(work / "lock", busy(work), PATIENCE):
        fit(cfg, work, ALONE, show)


def train_rank(settings: Path) -> None:
    """This process's share of the training that the file `settings` in the work folder describes."""
    cfg = TrainStage.read(settings)
    with joined(cfg.compute.device) as ranks:
        if not ranks.leads:
            fit(cfg, settings.parent, ranks, lambda step, figures: None)
            return
        with locked(settings.with_name("lock"), busy(settings.parent), PATIENCE):
            require_same_work(settings.parent.name, ranks)
            if ranks.first:
                report({"first": True})
            fit(cfg, settings.parent, ranks, lambda step, figures: report({"step": step, "figures": dict(figures)}))


def fit(cfg: TrainStage, work: Path, ranks: Ranks, show: Callable[[int, Mapping[str, float]], None]) -> None:
    """data/validated -> models/detector, reports/train."""
    device = prepare_device(cfg.compute, cfg.seed + ranks.rank, ranks.local, ranks.local_count)
    dataset = open_dataset(cfg.layout.validated)
    for name in ("train", "val"):
        require_labels(dataset, name, cfg.model.tasks, cfg.layout.validated)
        if takes_proposals(cfg.model):
            require_proposals(dataset, name, cfg.layout.validated)
    pictures = training_pictures(dataset.split("train"), cfg, dataset.info.categories)
    found = found_categories(dataset.info.categories, cfg.model.tasks)
    model = build_detector(cfg.model, num_classes=len(found), semantic_classes=len(dataset.info.semantic))
    tell_frequencies(model, torch.from_numpy(pictures_per_class(dataset.split("train").annotations, len(dataset.classes))))
    whole = load_checkpoint(model, cfg.model, len(found))
    backbone = load_pretrained(model, cfg.model) if whole is None else None
    if ranks.first:
        weights = f"weights: {whole}" if whole else f"backbone weights: {backbone.source if backbone else 'random'}"
        print(f"train: {len(dataset.classes)} classes; {weights}", flush=True)
    if ranks.count > 1:
        sync_norms(model, every=cfg.train.sync_norm)
    model.to(device)

    final: dict[str, float] = {}

    def log(step: int, figures: Mapping[str, float]) -> None:
        final.update(figures)
        show(step, figures)

    def batches(sampler: StepSampler) -> Iterator[Batch]:
        return training_batches(pictures, sampler, model.divisor, cfg.compute.workers)

    checkpoints = Checkpoints(work, cfg.train.checkpoint_every)
    validate = partial(validation, dataset=dataset, cfg=cfg)
    best = train(model, batches, cfg.train, device, cfg.seed, log, validate, ranks, checkpoints)
    if ranks.first:
        with staged(cfg.layout.detector) as out:
            stuff = [{"id": category.id, "name": category.name} for category in dataset.info.stuff]
            categories = [described(category) for category in found]
            save_detector(out, best, cfg.model, categories, dataset.info.semantic, stuff)  # type: ignore[arg-type]
            save_training(out, asdict(cfg.train), cfg.seed, dataset.info.digest)
            save_pictures(out, dataset.split("train"), cfg.model.weights)
        metrics = {name: value for name, value in final.items() if is_reproducible(name)}
        write_json(cfg.layout.reports("train") / "metrics.json", metrics)
    if ranks.leads and ranks.machines > 1:
        share_results(cfg.layout, ranks)


def require_same_work(name: str, ranks: Ranks) -> None:
    """UserError unless all machines train the same: `name` is of settings, labels and code. The ranks that lead them call it."""
    first = ranks.on_every_machine(name)
    if name != first:
        wrong = (
            f"train: this machine has other settings, labels or code than the one of rank 0 (work/train/{name}, there {first})"
        )
        raise UserError(f"{wrong}\n  bring all machines to one commit, and its data by dvc pull data/validated")


def share_results(layout: Layout, ranks: Ranks) -> None:
    """Rank 0's results on every machine, so that each has made what dvc.yaml says. The ranks that lead them call it."""
    detector, metrics = layout.detector, layout.reports("train") / "metrics.json"
    made = {path.name: path.read_bytes() for path in detector.iterdir()} if ranks.first else {}
    made, figures = ranks.on_every_machine((made, metrics.read_bytes() if ranks.first else b""))
    if not ranks.first:
        with staged(detector) as out:
            for name, content in made.items():
                (out / name).write_bytes(content)
        write_atomically(metrics, figures)


def training_pictures(split: Split, cfg: TrainStage, classes: Sequence[Category] = ()) -> TrainingPictures:
    """The endless stream of augmented training pictures."""
    if not split.images.file_names:
        raise DataError(cfg.layout.validated, "the train split holds no picture", "give it more data, or lower dataset.split.val")
    split, mirrors_CK = with_keypoints(split, cfg, classes)
    augment = cfg.train.augment
    augmentation = Augmentation(
        cfg.model.input.short_side, cfg.model.input.long_side, augment.flip, augment.scale, augment.crop, augment.crop_least
    )
    rare = cfg.train.repeat_rare
    repeats = None if rare is None else repeat_factors(split.annotations, len(split.images), rare)
    channels, proposals = cfg.model.input.channels, takes_proposals(cfg.model)
    return TrainingPictures(split, augmentation, channels, cfg.seed, cfg.model.tasks, proposals, repeats, mirrors_CK)


def with_keypoints(split: Split, cfg: TrainStage, classes: Sequence[Category]) -> tuple[Split, NDArray[np.int64] | None]:
    """The pictures that teach a keypoint head, and what mirrors make of the classes' keypoints; without such a head all, None."""
    roi = getattr(cfg.model, "roi", None)
    keypoint: KeypointConfig | None = getattr(roi, "keypoint", None)
    if keypoint is None:
        return split, None
    mirrors_CK = mirror_table(classes)
    if mirrors_CK.shape[1] > keypoint.keypoints:
        rule = f"must be at least {mirrors_CK.shape[1]}: a class of the dataset has so many keypoints"
        raise ConfigError("model.roi.keypoint.keypoints", keypoint.keypoints, rule)
    rows = pictures_with_keypoints(split, keypoint.least_visible)
    if not len(rows):
        wrong = f"no picture of the split {split.name} has {keypoint.least_visible} visible keypoints"
        raise DataError(cfg.layout.validated, wrong, "lower model.roi.keypoint.least_visible")
    return split.take_images(rows), mirrors_CK


def validation(model: nn.Module, step: int, dataset: Dataset, cfg: TrainStage) -> dict[str, float]:
    """The two most telling figures of each task of the model as it is now, on the validation split."""
    backend = TorchBackend(model, cfg.compute.device)
    ids = [category.id for category in found_categories(dataset.info.categories, cfg.model.tasks)]
    split = dataset.split("val")
    merging = merging_of(cfg.model, [category.id for category in dataset.info.stuff])
    divisor: int = model.divisor  # type: ignore[assignment]
    predictions = predict_split(backend, split, cfg.model.input, divisor, cfg.train.batch, ids, merging=merging)
    truth = Truth.of(split, dataset.info.categories, cfg.model.tasks, cfg.evaluate.keypoint_sigma)
    return {
        f"val/{task}/{name}": metrics.numbers[f"{task}/{name}"]
        for task, metrics in evaluate_all(truth, predictions, "hotcoco").items()
        for name in metrics.shown[:2]
        if metrics.figure(name) is not None
    }


def described(category: CategoryLike) -> dict[str, object]:
    """What a saved detector knows of a class: id and name, and keypoints where it has some."""
    names, skeleton = getattr(category, "keypoints", ()), getattr(category, "skeleton", ())
    keypoints = {"keypoints": list(names), "skeleton": [list(pair) for pair in skeleton]} if names else {}
    return {"id": category.id, "name": category.name} | keypoints


def is_reproducible(name: str) -> bool:
    """Whether a rerun gives the same figure: everything but speed."""
    return not name.endswith("per_second")


def busy(work: Path) -> str:
    """What to say when another process works in the folder."""
    return f"train: another process is training in {work}; wait for it, or stop it"
