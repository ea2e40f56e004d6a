"""The reference: held-out pictures of the validated dataset as the detector sees them, measured once per detector and dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.data.dataset import open_dataset, written_digest
from pipeline.data.sources import PICTURES
from pipeline.errors import DataError
from pipeline.files import digest_bytes, digest_file
from pipeline.layout import Layout
from pipeline.monitor.config import MonitorConfig
from pipeline.monitor.embedding import with_features
from pipeline.monitor.observations import Observations, observe
from pipeline.predict.session import Detector
from pipeline.progress import Progress

Pictures = Sequence[tuple[str, Path]]
MEASURING = (
    *("pipeline/monitor/embedding.py", "pipeline/monitor/observations.py", "pipeline/monitor/reference.py"),
    *("pipeline/labels/looks.py", "pipeline/predict"),
)
CODE = Path(__file__).absolute().parents[2]


@dataclass(frozen=True, slots=True)
class Watched:
    """A detector that gives its inner layer along, and what identifies it."""

    detector: Detector
    digest: str
    """Of the ONNX file."""
    layer: str | None
    """The inner layer; None where descriptors of colours and edges stand in."""


def watch(folder: Path, layout: Layout, threads: int = 0) -> Watched:
    """The float file of `folder` (models/onnx, or the champion's copy), opened so that it gives its inner layer."""
    detector = Detector.open(folder, threads=threads)
    path = folder / "detector.onnx"
    digest = digest_file(path)
    backend = with_features(path, layout.work("monitor", digest) / "features.onnx", threads)
    if backend is None:
        return Watched(detector, digest, None)
    return Watched(replace(detector, backend=backend), digest, backend.layer)


def pictures_below(folder: Path) -> list[tuple[str, Path]]:
    """Names and paths of the picture files of `folder`, its subfolders included. DataError when there is none."""
    if not folder.is_dir():
        raise DataError(folder, "no such folder", "name the folder of the new pictures: python -m pipeline monitor PICTURES")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise DataError(folder, "holds no pictures", f"pictures end in one of {', '.join(sorted(PICTURES))}")
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def drawn(pictures: Pictures, most: int, seed: int) -> list[tuple[str, Path]]:
    """At most `most` of them, at random, in their order."""
    if len(pictures) <= most:
        return list(pictures)
    rows = np.sort(np.random.default_rng(seed).choice(len(pictures), most, replace=False))
    return [pictures[row] for row in rows.tolist()]


def reference_pictures(layout: Layout, cfg: MonitorConfig, seed: int) -> list[tuple[str, Path]]:
    """The reference pictures that stand in data/validated, with the split before the name."""
    dataset = open_dataset(layout.validated)
    named = [
        (f"{name}/{file_name}", split.path(row))
        for name in cfg.splits
        for split in [dataset.split(name)]
        for row, file_name in enumerate(split.images.file_names)
    ]
    return drawn([(name, path) for name, path in named if path.is_file()], cfg.most, seed)


def reference(watched: Watched, layout: Layout, cfg: MonitorConfig, seed: int) -> Observations:
    """What the detector sees on the reference pictures; kept in work/monitor under a digest of all that it depends on.

    DataError for a reference picture that cannot be read.
    """
    kept = layout.work("monitor", watched.digest) / f"{reference_digest(layout, cfg, seed)}.npz"
    if kept.exists():
        return Observations.read(kept)
    pictures = reference_pictures(layout, cfg, seed)
    with Progress("monitor: reference pictures", len(pictures)) as progress:
        seen, unreadable = observe(watched.detector, pictures, cfg.low_score, progress.show)
    if unreadable:
        raise DataError(layout.validated, f"reference picture: {unreadable[0]}", "make it anew by: python -m pipeline validate")
    seen.write(kept)
    return seen


def reference_digest(layout: Layout, cfg: MonitorConfig, seed: int) -> str:
    """Of the dataset, the settings that choose and measure its pictures, and the code that does."""
    files = [file for place in MEASURING for file in (sorted((CODE / place).rglob("*.py")) or [CODE / place])]
    code = [digest_file(file) for file in files]
    chosen = f"{','.join(cfg.splits)} {cfg.most} {cfg.low_score} {seed}"
    return digest_bytes("\n".join([written_digest(layout.validated), chosen, *code]).encode())
