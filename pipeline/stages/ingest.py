"""Ingest: bring pictures and labels of any supported format into the one form that all later stages read."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.config import FormatDataset, ShapesDataset
from pipeline.data.dataset import Dataset, DatasetInfo, Split, read_info, tasks_of, write_dataset
from pipeline.data.dense import BODY
from pipeline.data.fetching import local_copy
from pipeline.data.formats.reading import read_format, resolved
from pipeline.data.formats.shapes import draw_shapes
from pipeline.data.sources import open_source, source_title, with_safe_names
from pipeline.data.splits import arrange_splits
from pipeline.errors import DataError
from pipeline.files import digest_bytes, staged, write_json

if TYPE_CHECKING:
    from pipeline.settings import IngestStage


def run(cfg: "IngestStage") -> None:
    """dataset.source -> data/dataset, reports/ingest/metrics.json.

    Faults of the labels are kept for `validate`. What cannot be read at all is a DataError; data/dataset then stays as it was.
    """
    dataset = cfg.dataset
    with staged(cfg.layout.dataset) as out:
        if isinstance(dataset, ShapesDataset):
            write_dataset(out, draw_shapes(dataset, cfg.seed, out / "images"))
        else:
            work = cfg.layout.work("ingest", digest_bytes(dataset.source.encode())[:16])
            with local_copy(dataset, cfg.storage, cfg.layout) as here, open_source(here, work, dataset.archive) as source:
                chosen, evidence = resolved(dataset, source)
                if evidence:
                    print(f"ingest: {evidence}", flush=True)
                write_dataset(out, read_source(chosen, cfg.seed, source))
        report = metrics(read_info(out))
    write_json(cfg.layout.reports("ingest") / "metrics.json", report)


def read_source(cfg: FormatDataset, seed: int, source: Path) -> Dataset:
    """The data of an opened source with its splits arranged, pictures named for `images/` and annotations numbered."""
    found = read_format(cfg, source)
    splits, splitting = arrange_splits(found.splits, cfg.split, seed, cfg.source)
    require_content(splits, cfg.source)
    splits = with_safe_names(splits)
    for split in splits.values():
        split.renumber()
    dense = any(split.annotations.dense is not None for split in splits.values())
    title = source_title(cfg.kind, cfg.source)
    info = DatasetInfo(
        found.categories,
        title,
        splitting,
        cfg.licence,
        unlisted=found.unlisted,
        stated_classes=found.stated_classes,
        stuff=found.stuff,
        semantic=found.semantic,
        surface=BODY if dense else None,
    )
    return Dataset(info, splits)


def require_content(splits: dict[str, Split], place: str) -> None:
    """DataError when there is no picture file, or no label that a detector could learn from."""
    if not any(split.path(row).is_file() for split in splits.values() for row in range(len(split.images))):
        raise DataError(place, "none of the pictures that its labels name is there", "put them below the source folder")
    for split in splits.values():
        ids, counts = np.unique(split.images.ids_I, return_counts=True)
        if (counts > 1).any():
            wrong = (
                f"image id {ids[counts > 1][0]} stands for several pictures of {split.name}: whose its labels are cannot be told"
            )
            raise DataError(place, wrong, "give each picture an id of its own")
    if not tasks_of(list(splits.values())):
        raise DataError(
            place, "has pictures, but its labels hold no box, mask or keypoint", "label some pictures, or name other label files"
        )


def metrics(info: DatasetInfo) -> dict[str, int]:
    """Flat counts; only what a rerun reproduces."""
    totals = {f"ingest/{what}/{name}": number for name, counts in info.counts.items() for what, number in counts.items()}
    return totals | {"ingest/classes": len(info.categories)}
