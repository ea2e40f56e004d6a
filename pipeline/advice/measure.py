"""Seconds and memory of one training step and one picture, measured in a process of its own: its peak is that of nothing else."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.detector.config import ModelConfig

CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of pictures of one size, in the batch that was asked for."""

    step_seconds: float
    picture_seconds: float
    peak_bytes: int
    """Most memory: of the process on a CPU, of the device's allocator on a GPU."""


def measure(
    cfg: "ModelConfig", classes: int, semantic_classes: int, height: int, width: int, batch: int, device: str, threads: int
) -> Measured:
    """Build the model, train a step, find in a picture: each twice, the second time counts. UserError when the child fails."""
    task = {
        "model": asdict(cfg),
        "classes": classes,
        "semantic_classes": semantic_classes,
        "size": [height, width],
        "batch": batch,
        "device": device,
        "threads": threads,
    }
    command = [sys.executable, "-m", "pipeline.advice.measure"]
    child = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False, cwd=CODE)
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        reason = child.stderr.strip().splitlines()[-1] if child.stderr.strip() else f"exit code {child.returncode}"
        raise UserError(f"advise: the timed step of {height} x {width} pixels, batch {batch}, failed: {reason}")
    return Measured(**json.loads(lines[-1]))


def main() -> None:
    """The child: a task as JSON on standard input, a `Measured` as JSON on standard output."""
    import resource
    import time

    import pydantic
    import torch

    from pipeline.advice.synthetic import synthetic_batch
    from pipeline.detector.build import build_detector
    from pipeline.detector.config import ModelConfig

    task: dict[str, Any] = json.loads(sys.stdin.read())
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    cfg = pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(task["model"])
    torch.manual_seed(0)
    classes, semantic_classes, (height, width) = task["classes"], task["semantic_classes"], task["size"]
    model = build_detector(cfg, classes, semantic_classes).to(task["device"])
    images, targets = synthetic_batch(cfg, classes, semantic_classes, height, width, model.divisor, task["batch"])
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
    proposals = images.proposals_NP4
    one = type(images)(images.pixels_N3HW[:1], images.sizes_N2[:1], None if proposals is None else proposals[:1])
    with torch.inference_mode():
        picture_seconds = min(seconds(lambda: model.detect(one)) for _ in range(2))
    print(json.dumps(asdict(Measured(step_seconds, picture_seconds, peak))))


if __name__ == "__main__":
    main()
