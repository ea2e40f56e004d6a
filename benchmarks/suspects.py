"""What `python -m pipeline suspects` finds of planted faults: `python benchmarks/suspects.py [dataset=voc dataset.source=...]`.

Ingests and validates the dataset that the overrides name (the built-in shapes without any), plants three kinds of faults in
copies of the labels, lets detectors that are trained without the pictures they judge find them (suspects.folds=4), and prints
recall and false alarms of each kind, and what is found in the labels as they were. `share=0.03` is planted of each kind;
`keep=FOLDER` keeps the place, so that a second run trains nothing again.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from pipeline.data.annotations import Annotations
from pipeline.data.dataset import Dataset, Split, open_dataset, write_dataset
from pipeline.labels.suspects import Kind, overlaps

SHIFTED = (0.25, 0.5)
"""IoU of a badly located box with the true one."""
FOUND = 0.5
"""An overlooked object counts as found when the finding's box has this IoU with it."""


class Fault(NamedTuple):
    """One planted fault."""

    kind: Kind
    split: str
    image: str
    annotation: int
    """Id of the label, which an overlooked one no longer has."""
    box: tuple[float, ...]
    """The true box."""


@dataclass(frozen=True, slots=True)
class Row:
    """Of one kind of fault."""

    kind: Kind
    planted: int
    recalled: int
    """Planted faults found under their own code."""
    findings: int
    false: int
    """Findings where nothing was planted, of any kind. Some are faults that the labels had before."""
    clean: int
    """Findings of the same code in the labels as they were."""


def plant(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, list[Fault]]:
    """A copy of `dataset` in which `share` of the labels has each kind of fault, chosen at random over all of them."""
    rng, faults, splits = np.random.default_rng(seed), list[Fault](), {}
    for name, split in dataset.splits.items():
        splits[name], own = _planted(split, [category.id for category in dataset.info.categories], share, rng)
        faults += own
    return Dataset(dataset.info, splits), faults


def compare(faults: Sequence[Fault], found: Sequence[dict[str, Any]], clean: Sequence[dict[str, Any]] = ()) -> list[Row]:
    """Findings (rows of findings.json) against what was planted."""
    rows = []
    for kind in Kind:
        own = [fault for fault in faults if fault.kind is kind]
        findings = [finding for finding in found if finding["code"] == kind]
        recalled = sum(any(_hits(finding, fault) for finding in findings) for fault in own)
        false = sum(not any(_near(finding, fault) for fault in faults) for finding in findings)
        rows.append(Row(kind, len(own), recalled, len(findings), false, sum(finding["code"] == kind for finding in clean)))
    return rows


def table(rows: Sequence[Row], labels: int) -> str:
    """The figures as text."""
    head = f"{'code':<20} {'planted':>7} {'found':>6} {'recall':>7} {'findings':>8} {'false':>6} {'per 100':>8} {'as it was':>10}"
    lines = [
        f"{row.kind:<20} {row.planted:>7} {row.recalled:>6} {row.recalled / max(1, row.planted):>7.2f} {row.findings:>8}"
        f" {row.false:>6} {100 * row.false / labels:>8.2f} {row.clean:>10}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    own = {word.partition("=")[0]: word.partition("=")[2] for word in arguments if word.partition("=")[0] in ("share", "keep")}
    overrides = [word for word in arguments if word.partition("=")[0] not in own]
    with contextlib.ExitStack() as stack:
        place = Path(own["keep"]) if "keep" in own else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkout(place)
        judge = [] if any(word.startswith("suspects.folds=") for word in overrides) else ["suspects.folds=4"]
        pipeline(place, "config", "tracking=off", *(word for word in overrides if not word.startswith("suspects.")))
        if not (place / "data/validated").is_dir():
            pipeline(place, "ingest")
            pipeline(place, "validate", "validate.fix=safe")
            shutil.copytree(place / "data/validated", place / "data/unplanted")
        asked = [word for word in overrides if word.startswith("suspects.")] + judge
        given = open_dataset(place / "data/unplanted")
        planted, faults = plant(given, float(own.get("share", 0.03)), seed=0)
        seen = {}
        for name, dataset in (("planted", planted), ("as it was", given)):
            write_dataset(place / "data/validated", dataset, copy_images=False)
            pipeline(place, "suspects", *asked)
            shutil.rmtree(place / f"reports/{name}", ignore_errors=True)
            shutil.copytree(place / "reports/suspects", place / f"reports/{name}")
            seen[name] = json.loads((place / "reports/suspects/findings.json").read_text())
    labels = sum(len(split.annotations) for split in planted.splits.values())
    print(f"{labels} labels; {' '.join(asked)}\n{table(compare(faults, seen['planted'], seen['as it was']), labels)}")


def checkout(place: Path) -> None:
    """A place that is this checkout's code and settings with data of its own."""
    place.mkdir(parents=True, exist_ok=True)
    for name in ("pipeline", "ops_cuda", "conf"):
        if not (place / name).exists():
            (place / name).symlink_to(CHECKOUT / name)


def pipeline(place: Path, *words: str) -> None:
    """`python -m pipeline ...` in the place; its failure ends the program."""
    subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=place, check=True)


def _planted(split: Split, category_ids: list[int], share: float, rng: np.random.Generator) -> tuple[Split, list[Fault]]:
    rows: Annotations = split.annotations
    usable = np.flatnonzero((rows.image_A >= 0) & (rows.label_A >= 0) & ~rows.crowd_A & np.isfinite(rows.boxes_A4).all(axis=1))
    chosen = rng.permutation(usable)
    count = round(share * len(usable))
    boxes_A4, label_A = rows.boxes_A4.copy(), rows.label_A.copy()
    faults: list[Fault] = []
    kinds = [Kind.OVERLOOKED] * count + [Kind.LOCATION] * count
    kinds += [Kind.CLASS] * (count if len(category_ids) > 1 else 0)
    for kind, row in zip(kinds, chosen.tolist(), strict=False):
        image = int(rows.image_A[row])
        name = split.images.file_names[image]
        faults.append(Fault(kind, split.name, name, int(rows.ids_A[row]), tuple(rows.boxes_A4[row].tolist())))
        if kind is Kind.LOCATION:
            frame = (int(split.images.widths_I[image]), int(split.images.heights_I[image]))
            boxes_A4[row] = displaced(rows.boxes_A4[row], frame, rng)
        if kind is Kind.CLASS:
            label_A[row] = (label_A[row] + rng.integers(1, len(category_ids))) % len(category_ids)
    category_A = np.where(label_A >= 0, np.asarray(category_ids)[label_A], rows.category_A)
    area_A = np.prod(boxes_A4[:, 2:] - boxes_A4[:, :2], axis=1)
    kept = np.setdiff1d(np.arange(len(rows)), chosen[: kinds.count(Kind.OVERLOOKED)])
    changed = replace(rows, boxes_A4=boxes_A4, label_A=label_A, category_A=category_A, area_A=area_A)
    return replace(split, annotations=changed.take(kept)), faults


def displaced(box_4: NDArray[np.float64], frame: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """The box moved and resized at random inside the picture, so that its IoU with the true one is in SHIFTED."""
    centre_2, size_2 = (box_4[:2] + box_4[2:]) / 2, box_4[2:] - box_4[:2]
    while True:
        half_2 = size_2 * np.exp(rng.uniform(-0.7, 0.7, 2)) / 2
        moved_2 = centre_2 + size_2 * rng.uniform(-0.6, 0.6, 2)
        tried_4 = np.concatenate([moved_2 - half_2, moved_2 + half_2]).clip(0, [*frame, *frame])
        iou = overlaps(tried_4[None], box_4[None], np.zeros(1, bool))[0, 0]
        if SHIFTED[0] <= iou <= SHIFTED[1]:
            return tried_4


def _hits(finding: dict[str, Any], fault: Fault) -> bool:
    """Whether the finding is that fault, under its own code."""
    if finding["code"] != fault.kind or (finding["split"], finding["image"]) != (fault.split, fault.image):
        return False
    return _covers(finding, fault) if fault.kind is Kind.OVERLOOKED else finding["annotation"] == fault.annotation


def _near(finding: dict[str, Any], fault: Fault) -> bool:
    """Whether the finding points at that fault, under whatever code."""
    if (finding["split"], finding["image"]) != (fault.split, fault.image):
        return False
    return finding["annotation"] == fault.annotation or _covers(finding, fault)


def _covers(finding: dict[str, Any], fault: Fault) -> bool:
    return float(overlaps(np.array([finding["box"]]), np.array([fault.box]), np.zeros(1, bool))[0, 0]) >= FOUND


if __name__ == "__main__":
    main(sys.argv[1:])
