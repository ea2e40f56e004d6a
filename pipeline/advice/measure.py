"""Seconds and memory of one training step and one picture, measured in a process of its own: its peak is that of nothing else."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.detector.config import ModelConfig
    from pipeline.structures import Images, Targets

CODE = Path(__file__).resolve().parents[2]
FAILED = "error: "
"""Begins the child's last line where it gives up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of pictures of one size, in the batch that was asked for."""

    step_seconds: float
    picture_seconds: float
    """Of a picture with as many finds as the fullest training picture has objects."""
    peak_bytes: int
    """Most memory of the steps: of the process on a CPU, of the device's allocator on a GPU. The network has learnt nothing yet:
    on a CPU, where heads see real regions only, later steps with more good proposals take more."""


@dataclass(frozen=True, slots=True)
class Classes:
    """What the heads are to tell apart."""

    objects: int
    semantic: int
    most_objects: int
    """Of one picture."""


def measure(cfg: "ModelConfig", classes: Classes, images: "Images", targets: "Targets", device: str, threads: int) -> Measured:
    """Build the model, train a step on the batch, find in its first picture: each twice, the second time counts.

    The batch has pictures of one size, not padded. UserError when the child fails.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "batch.pt"
        torch.save({"images": _plain(images), "targets": _plain(targets)}, held)
        task = {"model": asdict(cfg), "classes": asdict(classes), "batch": str(held), "device": device, "threads": threads}
        command = [sys.executable, "-m", "pipeline.advice.measure"]
        child = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False, cwd=CODE)
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        said = child.stderr.strip().splitlines()
        reason = lines[-1].removeprefix(FAILED) if lines and lines[-1].startswith(FAILED) else said[-1] if said else ""
        batch, _, height, width = images.pixels_N3HW.shape
        why = reason or f"exit code {child.returncode}"
        raise UserError(f"advise: the timed step of {cfg.kind}, {height} x {width} pixels, batch {batch}, failed: {why}")
    return Measured(**json.loads(lines[-1]))


def _plain(batch: Any) -> dict[str, Any]:
    """The tensors of a batch by field, as `torch.load(weights_only=True)` takes them."""
    import torch

    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {k: v if isinstance(v, torch.Tensor) else _plain(v) for k, v in values.items() if v is not None}


def main() -> None:
    """The child: a task as JSON on standard input, a `Measured` as JSON on standard output."""
    task: dict[str, Any] = json.loads(sys.stdin.read())
    try:
        print(json.dumps(asdict(_measured(task))))
    except UserError as error:
        print(f"{FAILED}{' '.join(str(error).split())}")
        sys.exit(1)


def _measured(task: dict[str, Any]) -> Measured:
    import resource
    import time

    import pydantic
    import torch

    from pipeline.detector.build import build_detector
    from pipeline.detector.config import ModelConfig
    from pipeline.structures import Images

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    classes = Classes(**task["classes"])
    cfg = crowded(pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(task["model"]), classes.most_objects)
    torch.manual_seed(0)
    model = build_detector(cfg, classes.objects, classes.semantic).to(task["device"])
    images, targets = read_batch(Path(task["batch"]), model.divisor)
    images, targets = images.to(task["device"]), targets.to(task["device"])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, momentum=0.9)
    generator = torch.Generator(task["device"]).manual_seed(0)
    on_gpu = task["device"] != "cpu"

    def seconds(work: Any) -> float:
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def step() -> None:
        optimizer.zero_grad()
        model.losses(images, targets, generator).total().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    model.train()
    step_seconds = min(seconds(step) for _ in range(2))
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model.eval()
    proposals = None if images.proposals_NP4 is None else images.proposals_NP4[:1]
    one = Images(images.pixels_N3HW[:1], images.sizes_N2[:1], proposals)
    with torch.inference_mode():
        picture_seconds = min(seconds(lambda: model.detect(one)) for _ in range(2))
    return Measured(step_seconds, picture_seconds, peak)


def crowded(cfg: Any, objects: int) -> Any:
    """The model with `objects` finds in a picture: one that has learnt nothing gives all or none of its boxes enough score."""
    owner = cfg if hasattr(cfg, "select") else getattr(cfg, "roi", None)
    if owner is None:
        return cfg
    owner = replace(owner, select=replace(owner.select, score=0.0, limit=max(1, min(objects, owner.select.limit))))
    return owner if hasattr(cfg, "select") else replace(cfg, roi=owner)


def read_batch(path: Path, divisor: int) -> "tuple[Images, Targets]":
    """The batch that `measure` wrote, padded at the right and bottom to multiples of `divisor`."""
    import torch
    from torch.nn import functional

    from pipeline.data.maps import IGNORED
    from pipeline.structures import DensePoints, Images, Polygons, Targets

    held = torch.load(path, weights_only=True)
    images, values = Images(**held["images"]), held["targets"]
    for name, kind in (("polygons", Polygons), ("points", DensePoints)):
        if name in values:
            values[name] = kind(**values[name])
    targets = Targets(**values)
    missing = [-side % divisor for side in images.pixels_N3HW.shape[-2:]]
    room = (0, missing[1], 0, missing[0])
    images = replace(images, pixels_N3HW=functional.pad(images.pixels_N3HW, room))
    if targets.semantic_NHW is not None:
        targets = replace(targets, semantic_NHW=functional.pad(targets.semantic_NHW, room, value=IGNORED))
    return images, targets


if __name__ == "__main__":
    main()
