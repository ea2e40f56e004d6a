"""The dataset card: what the data is, where it comes from, what was found wrong with it and what was done about that.

Sections after Gebru et al., "Datasheets for Datasets" (2018), in the form of the Hugging Face Hub's dataset cards. Every figure
is measured here or copied from the labels; what nobody stated is said to be not stated.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.data.dataset import Dataset, tasks_of
from pipeline.labels.distribution import AREAS
from pipeline.labels.validation import Validation
from pipeline.markdown import Cell, bullets, document, table, text


def dataset_card(result: Validation, digest: str) -> str:
    """Markdown about the validated dataset, whose content digest is `digest`; equal data and settings give equal bytes."""
    data, given = result.mended, result.given.dataset.info
    header = {
        "pretty_name": given.source,
        "license": "other" if given.licence else "unknown",
        **({"license_name": given.licence} if given.licence else {}),
        "task_categories": ["object-detection"],
        "size_categories": [_magnitude(sum(len(split.images) for split in data.splits.values()))],
    }
    facts: dict[str, Cell] = {
        "Source": given.source,
        "Licence": given.licence or "not stated in the settings (dataset.licence) nor by the source",
        "Labels for": ", ".join(tasks_of(list(data.splits.values()))) or "nothing",
        "How the splits were made": given.splitting,
        "Version (content digest of what passed the checks)": digest,
        "Digest of what was ingested": given.digest,
    }
    return document(
        header,
        f"# Dataset card: {text(given.source)}",
        bullets(facts),
        "## Splits and classes",
        "Counts after the label checks.",
        _splits(data),
        _classes(data),
        "## Sizes",
        "Boxes by area in the stored pictures: small below 32², large from 96² square pixels.",
        _sizes(data),
        "## Faults found and what was done",
        _faults(result),
        "## Limits",
        _limits(data, given.unlisted, result),
    )


def _splits(data: Dataset) -> str:
    rows = [(name, len(split.images), len(split.annotations)) for name, split in data.splits.items()]
    return table(("split", "pictures", "labels"), rows)


def _classes(data: Dataset) -> str:
    counts = {name: split.class_counts(len(data.classes)) for name, split in data.splits.items()}
    rows: list[Sequence[Cell]] = [(label, *(int(counts[name][at]) for name in counts)) for at, label in enumerate(data.classes)]
    return table(("class", *counts), rows)


def _sizes(data: Dataset) -> str:
    rows: list[tuple[Cell, ...]] = []
    for name, split in data.splits.items():
        sides_A2 = split.annotations.boxes_A4[:, 2:] - split.annotations.boxes_A4[:, :2]
        sides_A2 = sides_A2[np.isfinite(sides_A2).all(axis=1)]
        area_A = sides_A2.prod(axis=1)
        counts = [int(((area_A >= low) & (area_A < high)).sum()) for low, high in AREAS.values()]
        rows.append((name, *counts, float(sides_A2.min()) if len(sides_A2) else None))
    return table(("split", *AREAS, "shortest side, px"), rows)


def _faults(result: Validation) -> str:
    found = Counter(finding.code for finding in result.findings)
    mended = Counter(change.code for change in result.changes)
    rows = [
        (check.code, str(check.severity), found[check.code], mended[check.code], check.explanation())
        for check in result.checks
        if found[check.code]
    ]
    quiet = [check.code for check in result.checks if not found[check.code]]
    listed = table(("code", "severity", "found", "changes made", "what it is"), rows) if rows else "Nothing was found."
    return f"{listed}\n\nChecked without a finding: {text(', '.join(quiet) or 'none')}."


def _limits(data: Dataset, unlisted: tuple[str, ...], result: Validation) -> str:
    facts: dict[str, Cell] = {}
    for name, split in data.splits.items():
        counts = split.class_counts(len(data.classes))
        absent = [label for label, count in zip(data.classes, counts, strict=True) if not count]
        if absent:
            facts[f"Classes without a label in {name}"] = ", ".join(absent)
    before, after = len(result.given.file_names), sum(len(split.images) for split in data.splits.values())
    facts["Pictures left out by the checks"] = before - after
    facts["Files of the source that belong to no split"] = len(unlisted)
    facts["Not checked"] = (
        "whether a label is the right class, and objects that nobody labelled; who collected the pictures, and of whom"
    )
    return bullets(facts)


def _magnitude(pictures: int) -> str:
    """The Hub's word for a size."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((word for most, word in bounds if pictures < most), "n>1M")
