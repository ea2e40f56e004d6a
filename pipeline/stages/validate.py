"""Validate: check every label and picture, mend or leave out what is faulty, and stop the line when too much is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from pipeline.data.dataset import Dataset, open_dataset, write_dataset, written_digest
from pipeline.files import staged, write_atomically, write_json
from pipeline.labels.card import dataset_card
from pipeline.labels.check import Fix
from pipeline.labels.config import Page
from pipeline.labels.gallery import drawable, pictures_of
from pipeline.labels.validation import Validation, validate
from pipeline.progress import Progress
from pipeline.report import Badge, Report

if TYPE_CHECKING:
    from pipeline.settings import ValidateStage

QUALITY = 95
"""Of JPEG and WebP files that are written anew."""
SHOWN = 3
"""Polygons of a mask that the page's table of changes writes out."""


def run(cfg: "ValidateStage") -> None:
    """data/dataset -> data/validated, reports/validate.

    Raises GateError when the faults exceed `cfg.validate.gate`; reports/validate then shows them, data/validated stays as it was.
    """
    dataset = open_dataset(cfg.layout.dataset)
    with Progress("pictures checked", sum(len(split.images) for split in dataset.splits.values())) as progress:
        network = cfg.model.input.short_side, cfg.model.input.long_side
        result = validate(dataset, cfg.validate, lambda done: progress.show(done, ""), network)
    write_reports(cfg.layout.reports("validate"), result, cfg.validate.page)
    result.require(cfg.validate.gate)
    with staged(cfg.layout.validated) as out:
        write_dataset(out, with_upright_pictures(result, out / "images"))
        digest = written_digest(out)
    write_atomically(cfg.layout.reports("validate") / "dataset_card.md", dataset_card(result, digest).encode())
    print(summary(result))


def with_upright_pictures(result: Validation, folder: Path) -> Dataset:
    """The mended dataset, the pictures that a fix turns written into `folder` as viewers show them: the given ones stay."""
    turned = {(change.split, change.image) for change in result.changes if change.fix == Fix.UPRIGHT}
    splits = {}
    for name, split in result.mended.splits.items():
        paths = [split.path(row) for row in range(len(split.images))]
        for row, file_name in enumerate(split.images.file_names):
            if (name, file_name) in turned:
                write_upright(paths[row], folder / file_name)
                paths[row] = folder / file_name
        splits[name] = replace(split, sources=paths)
    return replace(result.mended, splits=splits)


def write_upright(source: Path, target: Path) -> None:
    """The picture as its EXIF orientation shows it, in its own format, without EXIF data."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        shown = ImageOps.exif_transpose(picture)
        shown.info.pop("exif", None)
        shown.save(target, picture.format, **({"quality": QUALITY} if picture.format in ("JPEG", "WEBP") else {}))


def write_reports(folder: Path, result: Validation, page: Page) -> None:
    """findings.json, audit.json, metrics.json and index.html, the same bytes for the same dataset and settings."""
    write_json(folder / "findings.json", [finding._asdict() for finding in result.findings])
    write_json(folder / "audit.json", [change._asdict() for change in result.changes])
    write_json(folder / "metrics.json", result.metrics())
    findings_page(result, page).write(folder / "index.html")


def summary(result: Validation) -> str:
    """What was found and done, a line per code."""
    count = Counter((finding.severity, finding.code) for finding in result.findings)
    lines = [f"  {severity:<8} {code:<32} {number:>7}" for (severity, code), number in count.items()]
    metrics = result.metrics()
    kept = (
        f"kept {metrics['validate/images_kept']} of {metrics['validate/images']} pictures"
        f" and {metrics['validate/annotations_kept']} of {metrics['validate/annotations']} annotations"
    )
    return "\n".join([f"validate: {sum(count.values())} findings, {len(result.changes)} changes; {kept}", *lines])


def findings_page(result: Validation, page: Page) -> Report:
    """The findings as a page: counts, what each code means, pictures with the faulty boxes, and the changes made."""
    metrics, findings, info = result.metrics(), result.findings, result.given.dataset.info
    report = Report("Label checks", f"{info.source}, digest {info.digest}")
    report.facts(
        {
            "findings": len(findings),
            "changes made": len(result.changes),
            "annotations with errors": f"{result.bad_annotations():.2%}",
            "pictures with errors": f"{result.bad_pictures():.2%}",
            "annotations kept": f"{metrics['validate/annotations_kept']} / {metrics['validate/annotations']}",
            "pictures kept": f"{metrics['validate/images_kept']} / {metrics['validate/images']}",
        }
    )
    counts, changes = Counter(finding.code for finding in findings), Counter(change.code for change in result.changes)
    fired = [check for check in result.checks if counts[check.code]]
    rows = [
        [_badge(check.severity), check.code, counts[check.code], changes[check.code], check.fix, check.explanation()]
        for check in fired
    ]
    report.table("Summary", ["severity", "code", "findings", "mended", "fix", "what it is"], rows, sortable=True)
    quiet = [check.code for check in result.checks if not counts[check.code]]
    report.text("", f"Nothing found by {len(quiet)} of {len(result.checks)} checks: {', '.join(quiet) or 'none'}.")
    for found in result.found:
        shown, there = list(pictures_of(result.given, found, page.pictures)), drawable(result.given, found)
        if shown:
            more = f" Shown: {len(shown)} of {there} pictures (validate.page.pictures)." if there > len(shown) else ""
            report.pictures(found.check.code, shown, found.check.explanation() + more)
    columns = ["severity", "code", "split", "picture", "annotation", "reason", "fix"]
    listed = [[_badge(f.severity), f.code, f.split, f.image, _name(f.annotation), f.reason, f.fix] for f in findings[: page.rows]]
    report.table("Findings", columns, listed, _cut(len(findings), page.rows, "findings.json"), sortable=True)
    done = [
        [c.fix, c.split, c.image, _name(c.annotation), c.reason, _values(c.old), _values(c.new)]
        for c in result.changes[: page.rows]
    ]
    columns = ["fix", "split", "picture", "annotation", "reason", "old", "new"]
    report.table("Changes", columns, done, _cut(len(result.changes), page.rows, "audit.json"), sortable=True)
    return report


def _badge(severity: str) -> Badge:
    return Badge(severity, "error" if severity == "error" else "warning" if severity == "warning" else "info")


def _name(annotation: int | None) -> str | None:
    return None if annotation is None else str(annotation)


def _cut(total: int, limit: int, file: str) -> str:
    return f"The first {limit} of {total}; {file} holds all." if total > limit else f"{total} in all; also in {file}."


def _values(values: dict[str, Any] | None) -> str:
    return "removed" if values is None else ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    """Short enough for a cell; audit.json has all of it."""
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return "; ".join(_value(item) for item in value[:SHOWN]) + ("; ..." if len(value) > SHOWN else "")
    if isinstance(value, list):
        numbers = ["–" if item is None else f"{item:g}" for item in value[: 4 * SHOWN]]
        return ",".join(numbers) + (f" ... ({len(value)} numbers)" if len(value) > 4 * SHOWN else "")
    text = str(value)
    return text if len(text) <= 40 * SHOWN else f"{text[: 40 * SHOWN]}..."
