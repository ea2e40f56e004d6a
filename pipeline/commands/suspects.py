"""python -m pipeline suspects [overrides]: labels that the detector contradicts, the surest first, in reports/suspects."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import settings
from pipeline.errors import UserError
from pipeline.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.data.dataset import Dataset, Split
    from pipeline.evaluation.found import Predictions
    from pipeline.labels.suspects import Found, Labels, Suspect
    from pipeline.report import Report
    from pipeline.settings import Settings

NEEDS_MAPS = {"semantic", "panoptic", "densepose"}


class Judged(NamedTuple):
    """Pictures whose labels are judged, and what a detector that never saw them found there."""

    split: "Split"
    origin: Sequence[str]
    """The split of data/validated that each picture is from."""
    predictions: "Predictions"
    by: str
    """By whom, in words."""


def run(arguments: Sequence[str]) -> None:
    """data/validated, models/detector -> reports/suspects: findings.json, metrics.json, index.html, and an MLflow run of them. No
    label is changed.

    With `suspects.folds=K` detectors are trained in work/suspects instead; a stopped run goes on from there. UserError when the
    detector finds no boxes of classes, or `suspects.split` is what it was trained on.
    """
    from pipeline import tracking

    chosen, layout = settings.load(arguments), Layout()
    with tracking.stage_run("suspects", chosen, layout):
        compare(chosen, layout)


def compare(chosen: "Settings", layout: Layout) -> None:
    """The labels with the detections, and the reports of it."""
    import numpy as np

    from pipeline.data.dataset import open_dataset
    from pipeline.files import staged, write_json
    from pipeline.labels.check import Severity
    from pipeline.labels.suspects import Labels, find_suspects, may_be_overlooked
    from pipeline.labels.suspicion import Kind

    dataset = open_dataset(layout.validated)
    judged = cross_validated(dataset, chosen, layout) if chosen.suspects.folds else by_the_trained(dataset, chosen, layout)
    labels, found = Labels.of(judged.split), found_boxes(judged, dataset)
    categories = [category.id for category in dataset.info.categories]
    suspects = [
        one
        for one in find_suspects(labels, found, chosen.suspects)
        if chosen.suspects.severity[one.kind] != Severity.IGNORE
        and (
            one.kind is not Kind.OVERLOOKED
            or may_be_overlooked(judged.split, one.image, categories[int(found.label_D[one.detection])])
        )
    ]
    count = Counter(one.kind for one in suspects)
    metrics = {f"suspects/{kind.value.removeprefix('suspect-')}": count[kind] for kind in Kind}
    metrics |= {"suspects/labels": int(np.count_nonzero(labels.judged_A)), "suspects/pictures": len(judged.split.images)}
    with staged(layout.reports("suspects")) as out:
        write_json(out / "findings.json", findings(judged, dataset, labels, found, suspects, chosen))
        write_json(out / "metrics.json", metrics)
        page(judged, dataset, labels, found, suspects, chosen).write(out / "index.html")
    told = "".join(f"\n  {chosen.suspects.severity[kind]:<8} {kind:<20} {count[kind]:>7}" for kind in Kind)
    print(f"suspects: {len(suspects)} among {metrics['suspects/labels']} labels, judged by {judged.by}{told}")
    print(f"look at {layout.reports('suspects') / 'index.html'}; nothing was changed")


def by_the_trained(dataset: "Dataset", chosen: "Settings", layout: Layout) -> Judged:
    """The split of the settings, judged by models/detector."""
    name = chosen.suspects.split
    if name == "train":
        raise UserError(
            "suspects.split=train: the detector was trained on these labels and repeats their faults\n"
            "  judge them by detectors that were not: python -m pipeline suspects suspects.folds=5"
        )
    split = dataset.split(name)
    return Judged(split, [name] * len(split.images), predicted(layout, dataset, split, chosen), "models/detector")


def cross_validated(dataset: "Dataset", chosen: "Settings", layout: Layout) -> Judged:
    """Every picture of every split, judged by a detector that was trained on the other folds."""
    from pipeline.data.folds import fold_of_pictures, origin, pooled
    from pipeline.detector.config import takes_proposals
    from pipeline.evaluation.found import Predictions
    from pipeline.files import locked

    if takes_proposals(chosen.model) or NEEDS_MAPS & set(chosen.model.tasks):
        rule = "learns from maps, dense poses or proposals, which are not pooled over splits"
        raise UserError(f"suspects.folds: {chosen.model.kind} {rule}\n  choose a model of boxes or masks, or suspects.folds=0")
    require_boxes(chosen.model.tasks)
    folds, whole = chosen.suspects.folds, pooled(dataset, layout.validated)
    fold_I = fold_of_pictures(whole, getattr(chosen.dataset, "split", None), folds, chosen.seed, layout.validated)
    work = layout.work("suspects")
    parts: list[Predictions] = []
    with locked(work / "lock", "suspects: another process is at work in this checkout; wait for it, or stop it"):
        for fold in range(folds):
            place = trained_without(fold_I == fold, dataset, whole, chosen, layout, f"fold {fold + 1} of {folds}")
            parts.append(predicted(place, dataset, whole.take_images(fold_I == fold), chosen))
    names, of_picture = origin(dataset)
    by = f"{folds} detectors, each trained without the pictures it judges"
    return Judged(whole, [names[place] for place in of_picture.tolist()], Predictions.joined(parts), by)


def trained_without(
    held_I: "NDArray[np.bool_]", dataset: "Dataset", whole: "Split", chosen: "Settings", layout: Layout, name: str
) -> Layout:
    """A place in work/suspects with a detector that the train stage made of all but the held pictures.

    It is named by all that the detector depends on, so that a finished one is used again and a stopped one goes on.
    """
    from dataclasses import replace

    from pipeline.data.folds import write_fold
    from pipeline.files import digest_bytes
    from pipeline.progress import Progress
    from pipeline.settings import TrainStage, stage_config
    from pipeline.training.launch import launch

    stage = stage_config("train", chosen, layout)
    assert isinstance(stage, TrainStage)
    # Never measured on the way: the held pictures must have no say in which weights are kept.
    stage = replace(stage, train=replace(chosen.train, validate_every=0), compute=replace(chosen.compute, nodes=1))
    parts = f"{chosen.suspects.folds} {name}".encode()
    digest = digest_bytes(stage.digest(sorted(layout.validated.glob("*.json"))).encode() + parts)
    place = Layout(layout.work("suspects", digest))
    if place.detector.is_dir():
        print(f"suspects: {name}: trained before, in {place.detector}", flush=True)
        return place
    write_fold(place.validated, dataset, whole, held_I, layout.validated / "images")
    stage = replace(stage, layout=place)
    work = place.work("train")
    work.mkdir(parents=True, exist_ok=True)
    stage.write(work / "settings.json")
    with Progress(f"suspects: {name}: train", chosen.train.steps) as progress:
        launch("pipeline.stages.train_rank:train_rank", work / "settings.json", stage.compute, _shown(progress.show))
    return place


def predicted(place: Layout, dataset: "Dataset", split: "Split", chosen: "Settings") -> "Predictions":
    """What the detector of `place` finds on `split`."""
    from pipeline.detector.weights import load_detector
    from pipeline.evaluation.inference import TorchBackend, predict_with, require_classes
    from pipeline.training.device import prepare_device

    device = prepare_device(chosen.compute, seed=0)
    detector = load_detector(place.detector, chosen.trusted)
    require_boxes(detector.cfg.tasks)
    require_classes(detector, dataset, place.validated)
    return predict_with(TorchBackend(detector.model.to(device), device.type), detector, split, chosen.evaluate.batch, "suspects")


def require_boxes(tasks: Sequence[str]) -> None:
    """UserError unless a detector of these tasks finds upright boxes of classes."""
    if "bbox" not in tasks:
        raise UserError(
            f"suspects: compares boxes of classes, and this detector finds {', '.join(tasks)}\n  choose another model"
        )


def found_boxes(judged: Judged, dataset: "Dataset") -> "Found":
    """The detections as rows of pictures and labels of classes."""
    import numpy as np

    from pipeline.data.dataset import labels_of
    from pipeline.labels.suspects import Found

    predictions, ids_I = judged.predictions, judged.split.images.ids_I
    order = np.argsort(ids_I, kind="stable")
    image_D = order[np.searchsorted(ids_I[order], predictions.image_ids_D)]
    label_D = labels_of(predictions.category_ids_D, [category.id for category in dataset.info.categories])
    return Found(image_D, predictions.boxes_D4, label_D, predictions.scores_D)


def findings(
    judged: Judged, dataset: "Dataset", labels: "Labels", found: "Found", suspects: Sequence["Suspect"], chosen: "Settings"
) -> list[dict[str, Any]]:
    """Rows of findings.json: those of validate's, and which box of which class contradicts, how sure."""
    return [
        {
            "code": str(one.kind),
            "severity": str(chosen.suspects.severity[one.kind]),
            "split": judged.origin[one.image],
            "image": judged.split.images.file_names[one.image],
            "annotation": None if one.label < 0 else int(judged.split.annotations.ids_A[labels.row_A[one.label]]),
            "reason": reason(one, dataset.classes, labels, found),
            "fix": None,
            "sure": round(one.sure, 4),
            "quality": round(one.quality, 4),
            "box": [round(side, 2) for side in found.boxes_D4[one.detection].tolist()],
            "class": dataset.classes[int(found.label_D[one.detection])],
            "score": round(float(found.scores_D[one.detection]), 4),
        }
        for one in suspects
    ]


def reason(one: "Suspect", classes: Sequence[str], labels: "Labels", found: "Found") -> str:
    """The finding in words."""
    from pipeline.labels.suspicion import Kind

    seen, score = classes[int(found.label_D[one.detection])], found.scores_D[one.detection]
    x1, y1, x2, y2 = found.boxes_D4[one.detection].tolist()
    at = f"at {x1:.0f},{y1:.0f},{x2:.0f},{y2:.0f}"
    if one.kind is Kind.OVERLOOKED:
        return f"no label where the detector sees a {seen} ({score:.2f}) {at}"
    given = classes[int(labels.label_A[one.label])]
    if one.kind is Kind.LOCATION:
        return f"the detector sees this {given} ({score:.2f}) {at}: IoU {one.quality:.2f} with the label"
    return f"labelled {given}, the detector sees a {seen} ({score:.2f}): IoU {1 - one.quality:.2f} with the label"


def page(
    judged: Judged, dataset: "Dataset", labels: "Labels", found: "Found", suspects: Sequence["Suspect"], chosen: "Settings"
) -> "Report":
    """The suspects as a page: counts, a picture each, and the table."""
    from pipeline.labels.suspect_pictures import suspect_picture
    from pipeline.labels.suspicion import Kind
    from pipeline.report import Report

    report = Report("Suspicious labels", f"{dataset.info.source}, {len(judged.split.images)} pictures, judged by {judged.by}")
    report.facts({str(kind): sum(one.kind is kind for one in suspects) for kind in Kind} | {"labels": len(labels.row_A)})
    report.text("", "Red: the label. Green: what the detector sees. Blue: other labels. Surest first. Nothing was changed.")
    for kind in Kind:
        own = [one for one in suspects if one.kind is kind]
        if shown := own[: chosen.suspects.pictures]:
            note = f" Shown: {len(shown)} of {len(own)} (suspects.pictures)." if len(own) > len(shown) else ""
            drawn = [
                (
                    suspect_picture(judged.split, dataset.classes, labels, found, one),
                    f"{judged.origin[one.image]} / {judged.split.images.file_names[one.image]}\n"
                    f"{reason(one, dataset.classes, labels, found)}",
                )
                for one in shown
            ]
            report.pictures(str(kind), drawn, kind.explanation + note)
    listed = findings(judged, dataset, labels, found, suspects[: chosen.suspects.rows], chosen)
    columns = ["sure", "code", "split", "image", "annotation", "reason"]
    rows = [[row[name] if name != "annotation" or row[name] is None else str(row[name]) for name in columns] for row in listed]
    more = f"The first {len(rows)} of {len(suspects)}; findings.json holds all." if len(suspects) > len(rows) else ""
    report.table("Findings", columns, rows, more)
    return report


def _shown(show: Callable[[int, str], None]) -> Callable[[dict[str, Any]], None]:
    """What a training process reports, as a line of progress."""
    return lambda said: show(said["step"], f"loss {said['figures']['train/loss']:.4g}" if "train/loss" in said["figures"] else "")
