"""Our CUDA ops beside torchvision's, on the GPU at hand: `python benchmarks/ops.py [part of a name]`.

One table: op, shape, ours, torchvision's, ratio, and what was achieved of the device's limit, which is measured first (bytes by a
copy, float32 operations by a product of matrices). Times are medians of event timings; inputs rotate through several sets, so
that a cache does not hold them; results are compared before anything is timed. Without a GPU it says so and ends with status 1.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

import ops_cuda

SETS, REPEATS, WARM_UP = 4, 40, 5
IOU_OPERATIONS = 18
"""Float operations of one overlap: four comparisons twice, areas, intersection, union, quotient."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row: `make(seed)` gives the arguments of `ours` and `theirs`; `same(ours, theirs)` holds before they are timed.

    `work` is bytes moved at least once, or float operations, of one call.
    """

    op: str
    shape: str
    make: Callable[[int], tuple[Any, ...]]
    ours: Callable[..., Any]
    theirs: Callable[..., Any] | None
    same: Callable[[Any, Any], bool]
    work: float
    unit: str


def boxes(generator: torch.Generator, *shape: int, width: float = 1333, height: float = 800, side: float = 200) -> Tensor:
    """Random boxes inside a picture."""
    u = torch.rand(*shape, 4, generator=generator, device="cuda")
    corner = u[..., :2] * torch.tensor([width, height], device="cuda")
    return torch.cat([corner, corner + 1 + u[..., 2:] * side], -1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator(device="cuda").manual_seed(seed)


def nms_cases() -> Iterator[Case]:
    """Single pictures of many classes, and a batch."""
    from torchvision.ops import batched_nms

    def make(images: int, rows: int, classes: int) -> Callable[[int], tuple[Any, ...]]:
        def made(seed: int) -> tuple[Any, ...]:
            generator = seeded(seed)
            groups = torch.randint(classes, (images, rows), generator=generator, device="cuda")
            return boxes(generator, images, rows), torch.rand(images, rows, generator=generator, device="cuda"), groups

        return made

    def ours(classes: int) -> Callable[..., Any]:
        return lambda b, s, g: ops_cuda.nms(b, s, g, classes, 0.5, b.shape[1])

    def theirs(b: Tensor, s: Tensor, g: Tensor) -> list[Tensor]:
        return [batched_nms(*image, 0.5) for image in zip(b, s, g, strict=True)]

    def same(found: tuple[Tensor, Tensor], wanted: list[Tensor]) -> bool:
        """The same boxes but for a few: theirs shifts classes apart, which rounds coordinates."""
        counts = torch.tensor([len(kept) for kept in wanted], device="cuda")
        return bool(((found[1] - counts).abs() <= 2 + counts // 1000).all())

    for images, rows, classes in ((1, 1000, 1), (1, 1000, 80), (1, 10_000, 80), (1, 100_000, 80), (16, 2000, 80)):
        name = f"{images} x {rows} boxes, {classes} classes"
        yield Case("nms", name, make(images, rows, classes), ours(classes), theirs, same, 0, "")


def roi_align_cases() -> Iterator[Case]:
    """Four levels of a batch of eight, forward and with its gradient."""
    from torchvision.ops import roi_align

    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]

    def make(count: int) -> Callable[[int], tuple[Any, ...]]:
        def made(seed: int) -> tuple[Any, ...]:
            generator = seeded(seed)
            levels = [
                torch.rand(8, 256, 800 * k // 32, 1344 * k // 32, generator=generator, device="cuda").requires_grad_()
                for k in (8, 4, 2, 1)
            ]
            found = boxes(generator, count, side=500)
            return levels, found, torch.arange(count, device="cuda") % 8, ops_cuda.pyramid_level(found, 4, 2, 224, 4)

        return made

    def ours(levels: list[Tensor], b: Tensor, image: Tensor, level: Tensor) -> Tensor:
        return ops_cuda.roi_align(levels, b, image, level, scales, (7, 7), 0, True)

    def theirs(levels: list[Tensor], b: Tensor, image: Tensor, level: Tensor) -> Tensor:
        rois = torch.cat([image.unsqueeze(1).float(), b], 1)
        regions = levels[0].new_zeros(len(b), 256, 7, 7)
        for number, (feature, scale) in enumerate(zip(levels, scales, strict=True)):
            rows = torch.where(level == number)[0]
            regions[rows] = roi_align(feature, rois[rows], (7, 7), scale, 0, True)
        return regions

    def both_ways(forward: Callable[..., Tensor]) -> Callable[..., Any]:
        def run(levels: list[Tensor], *rest: Tensor) -> Any:
            return torch.autograd.grad(forward(levels, *rest).sum(), levels)

        return run

    def near(found: Any, wanted: Any) -> bool:
        pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
        return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)

    for count in (512, 8192):
        written = count * 256 * 49 * 4
        yield Case("roi_align forward", f"{count} boxes", make(count), ours, theirs, near, written, "GB/s written")
        name = f"{count} boxes"
        yield Case("roi_align both ways", name, make(count), both_ways(ours), both_ways(theirs), near, written, "GB/s written")


def focal_cases() -> Iterator[Case]:
    """Loss summed over all anchors, with its gradient. Theirs gets its one-hot targets for nothing."""
    from torchvision.ops import sigmoid_focal_loss

    def made(seed: int) -> tuple[Any, ...]:
        generator = seeded(seed)
        logits = torch.randn(8, 200_000, 80, generator=generator, device="cuda").requires_grad_()
        classes = torch.randint(-1, 80, (8, 200_000), generator=generator, device="cuda")
        return logits, classes, torch.nn.functional.one_hot(classes.clamp(min=0), 80).float() * (classes >= 0).unsqueeze(-1)

    def ours(logits: Tensor, classes: Tensor, _: Tensor) -> Any:
        return torch.autograd.grad(ops_cuda.class_focal_loss(logits, classes, 0.25, 2.0), logits)[0]

    def theirs(logits: Tensor, _: Tensor, targets: Tensor) -> Any:
        return torch.autograd.grad(sigmoid_focal_loss(logits, targets, 0.25, 2.0, "sum"), logits)[0]

    def near(found: Tensor, wanted: Tensor) -> bool:
        return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)

    yield Case("focal loss both ways", "8 x 200k x 80", made, ours, theirs, near, 8 * 200_000 * 80 * 8.0, "GB/s")


def matching_cases() -> Iterator[Case]:
    """Shared anchors of a batch against its truths."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def made(seed: int) -> tuple[Any, ...]:
        generator = seeded(seed)
        return boxes(generator, 1, 200_000), boxes(generator, 8, 100), torch.ones(8, 100, dtype=torch.bool, device="cuda")

    def ours(anchors: Tensor, truths: Tensor, valid: Tensor) -> Any:
        return ops_cuda.match_boxes(anchors, truths, valid, (0.3, 0.7), (0, -1, 1), True)

    def theirs(anchors: Tensor, truths: Tensor, valid: Tensor) -> Any:
        return torch.stack([matcher(box_iou(image, anchors[0])) for image in truths])

    def same(found: Any, wanted: Tensor) -> bool:
        return bool(((found[1] == 1) == (wanted >= 0)).float().mean() > 0.99999)

    work = 2.0 * 8 * 200_000 * 100 * IOU_OPERATIONS
    yield Case("match_boxes", "8 x 200k anchors x 100", made, ours, theirs, same, work, "GFLOP/s")


def paste_cases() -> Iterator[Case]:
    """A picture's masks at full size, as pixels and as run lengths, against torchvision's pasting and its thresholding.

    Theirs knows no run lengths: its column holds what it does before them.
    """
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    count, height, width = 100, 800, 1333

    def made(seed: int) -> tuple[Any, ...]:
        """Discs of half a box in radius, somewhere in it."""
        generator, cell = seeded(seed), torch.linspace(0, 1, 28, device="cuda")
        y, x = torch.rand(2, count, 1, generator=generator, device="cuda") - cell
        return 1 - torch.hypot(y.unsqueeze(2), x.unsqueeze(1)).clamp(max=1), boxes(generator, count)

    def theirs(masks: Tensor, b: Tensor) -> Tensor:
        """Masks are resized to whole pixels, so borders differ by one."""
        full: Tensor = paste_masks_in_image(masks.unsqueeze(1), b, (height, width))
        return full[:, 0] >= 0.5

    def near(found: Tensor, wanted: Tensor) -> bool:
        return float((found & wanted).sum() / (found | wanted).sum()) > 0.8

    def near_runs(found: tuple[Tensor, Tensor], wanted: Tensor) -> bool:
        return int(found[1][-1]) <= len(found[0]) and near(ops_cuda.decode_rle(*found, height, width), wanted)

    def pixels(masks: Tensor, b: Tensor) -> Tensor:
        return ops_cuda.paste_masks(masks, b, height, width)

    def runs(masks: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return ops_cuda.paste_rle(masks, b, height, width, 200_000)

    size = f"{count} masks at {height} x {width}"
    yield Case("paste_masks", size, made, pixels, theirs, near, 1.0 * count * height * width, "GB/s written")
    yield Case("paste_rle", size, made, runs, theirs, near_runs, 0, "")


def deform_cases() -> Iterator[Case]:
    """A modulated 3 x 3 convolution of a ResNet's third stage, forward and with all gradients."""
    from torchvision.ops import deform_conv2d

    def made(seed: int) -> tuple[Any, ...]:
        generator = seeded(seed)
        shapes = (2, 256, 50, 84), (2, 18, 50, 84), (256, 256, 3, 3), (2, 9, 50, 84)
        return tuple(torch.randn(*shape, generator=generator, device="cuda").requires_grad_() for shape in shapes)

    def ours(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        return ops_cuda.deform_conv2d(x, offset, weight, mask, 1, 1, 1, 1)

    def theirs(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        return deform_conv2d(x, offset, weight, None, 1, 1, 1, mask)

    def both_ways(forward: Callable[..., Tensor]) -> Callable[..., Any]:
        return lambda *given: torch.autograd.grad(forward(*given).sum(), given)

    def near(found: Any, wanted: Any) -> bool:
        pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
        return all(bool((a - b).abs().max() <= 1e-3 * b.abs().max()) for a, b in pairs)

    work = 2.0 * 2 * 50 * 84 * 256 * 256 * 9
    yield Case("deform_conv2d forward", "2 x 256 x 50 x 84", made, ours, theirs, near, work, "GFLOP/s")
    yield Case(
        "deform_conv2d both ways", "2 x 256 x 50 x 84", made, both_ways(ours), both_ways(theirs), near, 3 * work, "GFLOP/s"
    )


CASES = (nms_cases, roi_align_cases, focal_cases, matching_cases, deform_cases, paste_cases)


def milliseconds(run: Callable[..., Any], sets: list[tuple[Any, ...]]) -> float:
    """Median over REPEATS calls, inputs in turn."""
    for number in range(WARM_UP):
        run(*sets[number % len(sets)])
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)]
    for number, (start, end) in enumerate(events):
        start.record()
        run(*sets[number % len(sets)])
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def limits() -> dict[str, float]:
    """What the device moves and computes at best, in 1e9 a second."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    copied = 8e-9 * source.numel() / (milliseconds(target.copy_, [(source,)]) * 1e-3)
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.rand(8192, 8192, device="cuda")
    return {"GB/s": copied, "GFLOP/s": 2e-9 * 8192**3 / (milliseconds(torch.mm, [(a, a)]) * 1e-3)}


def launch_microseconds() -> float:
    """Host time of one launch through `_numba`, the op's own Python and torch's dispatcher left out."""
    from ops_cuda.kernels.sigmoid_focal_loss import FORWARD

    x = torch.zeros(64, device="cuda")
    given = (torch.float32, x.device, 1, 256, x, x, torch.empty_like(x), 64, 0.25, 2.0)
    FORWARD.launch(*given)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(500):
        FORWARD.launch(*given)
    passed = time.perf_counter() - start
    torch.cuda.synchronize()
    return passed / 500 * 1e6


def row(case: Case, limit: dict[str, float]) -> str:
    """Check, time and describe one case."""
    sets = [case.make(seed) for seed in range(SETS)]
    if case.theirs is not None and not case.same(case.ours(*sets[0]), case.theirs(*sets[0])):
        return f"| {case.op} | {case.shape} | results differ: not timed | | | |"
    ours = milliseconds(case.ours, sets)
    theirs = milliseconds(case.theirs, sets) if case.theirs is not None else None
    achieved = ""
    if case.work:
        rate, kind = 1e-9 * case.work / (ours * 1e-3), case.unit.split()[0]
        achieved = f"{rate:.0f} {case.unit}, {rate / limit[kind]:.0%} of {limit[kind]:.0f}"
    against = "" if theirs is None else f"{theirs:.3f} ms"
    ratio = "" if theirs is None else f"{theirs / ours:.2f}x"
    return f"| {case.op} | {case.shape} | {ours:.3f} ms | {against} | {ratio} | {achieved} |"


def main() -> int:
    """Print the table, of ops named like the argument if there is one."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured. `python -m ops_cuda.compile_gate` proves what can be proven without one.")
        return 1
    import torchvision

    part, limit = "".join(sys.argv[1:2]), limits()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"measured limits: {limit['GB/s']:.0f} GB/s, {limit['GFLOP/s']:.0f} GFLOP/s; a launch takes the host "
          f"{launch_microseconds():.1f} us\n")  # fmt: skip
    print("| op | shape | ours | torchvision | ratio | achieved |\n|---|---|---|---|---|---|")
    for cases in CASES:
        for case in cases():
            if part in case.op:
                print(row(case, limit), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
