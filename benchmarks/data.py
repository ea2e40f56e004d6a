"""What a large dataset costs: `python benchmarks/data.py [annotations=1000000 images=100000]`; a few GB of disk for a while.

Generates COCO JSON (20-point polygons, no pixels: all but one picture per split are missing), ingests it in a child process, and
prints the seconds of each step and the peak of the child's resident memory. Then a second child reads what was written, starts
loader workers that each read the labels of every picture, and prints what one worker more costs as a share of the dataset. PSS
counts a page that n processes share as 1/n of a page in each: the sum over a process tree is the memory that it really takes.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import TypeAdapter

from pipeline.data.config import DatasetConfig, watched_by_dvc
from pipeline.data.dataset import open_dataset, read_info, write_dataset
from pipeline.process import die_with_parent
from pipeline.stages.ingest import read_source

ROOT = Path(__file__).resolve().parents[1]
POINTS, CLASSES, SIDE = 20, 80, 640
SHARES = {"train": 0.9, "val": 0.1}


def main() -> None:
    """Print the figures."""
    chosen = {"annotations": 1_000_000, "images": 100_000} | {k: int(v) for k, v in (word.split("=") for word in sys.argv[1:])}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(folder / "source", chosen["annotations"], chosen["images"])
        size = sum(path.stat().st_size for path in folder.rglob("*.json"))
        print(f"{size / 1e6:6.0f} MB of JSON generated", flush=True)
        ingested = in_child(measure_ingest, folder / "source", folder / "dataset")
        parts = f"{ingested['read_s']:.1f} to read, {ingested['write_s']:.1f} to write"
        print(f"{ingested['seconds']:6.1f} s   ingest ({parts}), peak {ingested['peak_gb']:.2f} GB", flush=True)
        workers = in_child(measure_loader, folder / "dataset")
        print(
            f"{100 * workers['share_per_worker']:6.1f} %   of the dataset's {workers['dataset_mb']:.0f} MB per additional worker",
            flush=True,
        )
    print(json.dumps(chosen | ingested | workers | {"python": platform.python_version(), "machine": platform.machine()}))


def in_child(function: Callable[..., dict[str, Any]], *arguments: Path) -> dict[str, Any]:
    """The function's result, from a process of its own that starts empty."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_child) as pool:
        return pool.submit(function, *arguments).result()


def _start_child() -> None:
    """A spawned process spawns its own children; loader workers are forked, as in a process started by hand."""
    die_with_parent()
    set_start_method("fork", force=True)


# -- the source --


def generate(folder: Path, annotations: int, images: int) -> None:
    """COCO's layout and fields, annotations in no order, one picture per split."""
    (folder / "annotations").mkdir(parents=True)
    first = 1
    for name, share in SHARES.items():
        rng = np.random.default_rng(len(name))
        rows, count = round(annotations * share), round(images * share)
        (folder / name).mkdir()
        Image.new("RGB", (SIDE, SIDE)).save(folder / name / file_name(name, 0))
        with (folder / f"annotations/instances_{name}.json").open("wb") as file:
            file.write(b'{"info": {"year": 2026}, "licenses": [{"id": 1, "name": "any", "url": "nowhere"}], "images": ')
            file.write(orjson.dumps([image_record(name, row) for row in range(count)]))
            file.write(b', "annotations": [')
            for begin in range(0, rows, 10_000):
                many = min(10_000, rows - begin)
                records = annotation_records(rng, many, count, first + begin)
                file.write(b", " * (begin > 0) + b", ".join(orjson.dumps(record) for record in records))
            file.write(b'], "categories": ')
            file.write(orjson.dumps([{"id": k, "name": f"class {k}", "supercategory": "thing"} for k in range(1, CLASSES + 1)]))
            file.write(b"}")
        first += rows


def file_name(split: str, row: int) -> str:
    """Name of picture `row` of a split."""
    return f"{split}_{row:012}.jpg"


def image_record(split: str, row: int) -> dict[str, Any]:
    """With the fields that COCO's own images have beside the needed ones."""
    name = file_name(split, row)
    where = {"coco_url": f"http://images.example/{split}/{name}", "flickr_url": f"http://pictures.example/{row:x}/{name}"}
    needed = {"id": row, "file_name": name, "height": SIDE, "width": SIDE}
    return {"license": 1, **needed, **where, "date_captured": "2013-11-14 17:02:52"}


def annotation_records(rng: np.random.Generator, count: int, images: int, first: int) -> Iterator[dict[str, Any]]:
    """Star-shaped polygons of POINTS points, decimals as COCO's."""
    radius_A1 = np.exp(rng.normal(3.3, 0.8, (count, 1))).clip(3, SIDE / 4)
    turns_P = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    centre_A2 = radius_A1 + rng.random((count, 2)) * (SIDE - 2 * radius_A1)
    reach_AP = radius_A1 * rng.uniform(0.7, 1, (count, POINTS))
    points_AP2 = centre_A2[:, None] + reach_AP[..., None] * np.stack([np.cos(turns_P), np.sin(turns_P)], axis=1)
    points_AP2 = points_AP2.round(2)
    corner_A2, far_A2 = points_AP2.min(axis=1), points_AP2.max(axis=1)
    boxes = np.concatenate([corner_A2, far_A2 - corner_A2], axis=1).round(2).tolist()
    areas = (radius_A1[:, 0] ** 2 * 2.2).round(4).tolist()
    image_ids, category_ids = rng.integers(0, images, count).tolist(), rng.integers(1, CLASSES + 1, count).tolist()
    for row, polygon in enumerate(points_AP2.reshape(count, -1).tolist()):
        yield {
            "segmentation": [polygon],
            "area": areas[row],
            "iscrowd": 0,
            "image_id": image_ids[row],
            "bbox": boxes[row],
            "category_id": category_ids[row],
            "id": first + row,
        }


# -- ingest --


def measure_ingest(source: Path, out: Path) -> dict[str, Any]:
    """What the stage does with a folder."""
    settings = yaml.safe_load((ROOT / "conf/dataset/coco.yaml").read_text()) | {"source": str(source)}
    cfg: Any = TypeAdapter(DatasetConfig).validate_python(settings | {"watched": watched_by_dvc(str(source))})
    start, began = peak_gb(), time.perf_counter()
    dataset = read_source(cfg, 0, source)
    read = time.perf_counter()
    write_dataset(out, dataset)
    done = time.perf_counter()
    ingested = sum(counts["annotations"] for counts in read_info(out).counts.values())
    steps = {"read_s": read - began, "write_s": done - read, "seconds": done - began}
    return {name: round(seconds, 1) for name, seconds in steps.items()} | {
        "peak_gb": round(peak_gb(), 2),
        "growth_gb": round(peak_gb() - start, 3),
        "ingested": ingested,
    }


def peak_gb() -> float:
    """Most resident memory of this process so far. `ru_maxrss` would also know of its parent's, from before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


# -- loader workers --


def measure_loader(folder: Path) -> dict[str, Any]:
    """Seconds to open the dataset, its memory, and what workers add."""
    from benchmarks.loader_memory import held_bytes, measure_workers

    began = time.perf_counter()
    dataset = open_dataset(folder)
    opened = time.perf_counter() - began
    figures = {"open_s": round(opened, 1), "open_peak_gb": round(peak_gb(), 2), "dataset_mb": round(held_bytes(dataset) / 1e6, 1)}
    return figures | measure_workers(dataset.splits["train"])


if __name__ == "__main__":
    main()
