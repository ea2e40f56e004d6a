"""python benchmarks/drift.py [keep=FOLDER]: false alarms and power of `python -m pipeline monitor`, into docs/drift-measured.md.

Makes a detector by the line's own stages on two sets, BCCD (real, ../shared) and generated 64-pixel shapes, looks at held-out
pictures as they are and with planted faults, and counts alarms over many random draws. `keep=FOLDER` keeps detectors and
measurements, so that a second run takes minutes less. 20 minutes on one core.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from pipeline import settings
from pipeline.data.dataset import Dataset, open_dataset
from pipeline.data.formats import shapes
from pipeline.layout import Layout
from pipeline.markdown import table
from pipeline.monitor.config import MonitorConfig
from pipeline.monitor.drift import Verdict, judge, values
from pipeline.monitor.observations import Observations, observed
from pipeline.monitor.reference import Watched, watch
from pipeline.predict.preprocess import Pixels, read_image

SHARED = CHECKOUT.parent / "shared/data"
OUT = CHECKOUT / "docs/drift-measured.md"
LINE = ("tracking=off", "compute.workers=0", "compute.threads=1", "train.validate_every=0", "export.gate.int8_ap=0.2")
QUICK = ("quantize.pictures=16", "quantize.sensitivity_pictures=1", "quantize.held_pictures=16", "quantize.held_loss=0.05")
PERMUTATIONS = 999
Plant = Callable[[Pixels, int], Pixels]
CUT_OUTS = 24
SOFT = 3.0
"""Deviation in pixels of the blur of pasted objects: sharp ones would be found by their sharpness."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """A dataset, a detector on it, and the strengths of what is planted."""

    name: str
    words: str
    overrides: tuple[str, ...]
    held_out: tuple[str, ...]
    """Splits that the detector was not trained on."""
    rare: str
    """Class whose share is shifted."""
    blur: tuple[float, ...]
    """Deviation of the Gaussian, in pixels."""
    strange: Plant
    """Puts a new class into a picture."""
    new: tuple[int, ...]
    """Numbers of new pictures."""
    halves: int
    trials: int


DARKER = (0.97, 0.9, 0.8)
STRANGE = (0.25, 0.5, 1.0)
"""Share of the pictures with objects of a class that nobody trained on."""
SHIFTED = (2.0, 4.0, 8.0)
"""A picture is drawn so many times as often for each object of the rare class."""


def detector_of(setup: Setup, place: Path) -> Layout:
    """The line's results in `place`, made unless they are there."""
    layout = Layout(place / setup.name)
    if not (layout.onnx / "deploy.json").exists():
        config = settings.load([*setup.overrides, *LINE, *QUICK], CHECKOUT)
        for stage in settings.STAGES:
            importlib.import_module(f"pipeline.stages.{stage}").run(settings.stage_config(stage, config, layout))
    return layout


def looked_at(setup: Setup, layout: Layout, watched: Watched, splits: Sequence[str], fault: str, plant: Plant) -> Observations:
    """Every picture of `splits`, changed by `plant` (picture, number); kept by the name of the fault."""
    kept = layout.work("drift") / f"{'-'.join(splits)} {fault}.npz"
    if kept.exists():
        return Observations.read(kept)
    print(f"{setup.name}: {' and '.join(splits)}, {fault}", flush=True)
    dataset = open_dataset(layout.validated)
    seen = [
        observed(watched.detector, file_name, plant(read_image(split.path(row)), row), 0.05)
        for split in map(dataset.split, splits)
        for row, file_name in enumerate(split.images.file_names)
    ]
    Observations.joined(seen).write(kept)
    return Observations.joined(seen)


# -- what is planted --


def as_it_is(image_HW3: Pixels, number: int) -> Pixels:
    """The clean twin."""
    return image_HW3


def blurred(deviation: float) -> Plant:
    """A lens out of focus."""
    return lambda image_HW3, number: np.asarray(Image.fromarray(image_HW3).filter(ImageFilter.GaussianBlur(deviation)))


def darkened(factor: float) -> Plant:
    """Less light."""
    return lambda image_HW3, number: np.rint(image_HW3 * factor).astype(np.uint8)


def lozenges(number: int) -> Pixels:
    """A picture of the generator whose objects are all of a fourth form; grounds, textures, sizes and numbers as ever."""
    cfg = settings.load(SHAPES.overrides, CHECKOUT).dataset
    outline_P2 = np.array([[0.0, -1.0], [0.4, 0.0], [0.0, 1.0], [-0.4, 0.0]])
    with patch.object(shapes, "FORMS", (shapes.Form("lozenge", outline_P2, {}, 90),) * len(shapes.FORMS)):
        return shapes.draw_scene(cfg, np.random.default_rng([SEED, number])).pixels_HW3


def pasted(image_HW3: Pixels, number: int) -> Pixels:
    """One object cut out of a COCO picture, 0.25 to 0.4 of the short side long, somewhere inside; as soft as the photographs."""
    rng = np.random.default_rng([SEED, number])
    objects = cut_outs()
    cut = objects[int(rng.integers(len(objects)))]
    height, width = image_HW3.shape[:2]
    scale = rng.uniform(0.25, 0.4) * min(height, width) / max(cut.size)
    small = cut.resize((max(4, round(cut.width * scale)), max(4, round(cut.height * scale))), Image.Resampling.LANCZOS)
    small = small.filter(ImageFilter.GaussianBlur(SOFT))
    canvas = Image.fromarray(image_HW3)
    place = int(rng.integers(width - small.width + 1)), int(rng.integers(height - small.height + 1))
    canvas.paste(small.convert("RGB"), place, small.getchannel("A"))
    return np.asarray(canvas)


@cache
def cut_outs() -> list[Image.Image]:
    """The first large objects of COCO pictures, by their labelled outlines, as RGBA."""
    from PIL import ImageDraw

    found: list[Image.Image] = []
    for labels in sorted((SHARED / "coco128_by/instance_segmentation/labels/train2017").glob("*.txt")):
        picture = Image.open(SHARED / "coco128_by/images/train2017" / f"{labels.stem}.jpg").convert("RGB")
        for line in labels.read_text().splitlines():
            outline_P2 = np.array(line.split()[1:], np.float64).reshape(-1, 2) * picture.size
            (left, top), (right, bottom) = outline_P2.min(axis=0).astype(int), outline_P2.max(axis=0).astype(int)
            if min(right - left, bottom - top) >= 80 and len(found) < CUT_OUTS:
                mask = Image.new("L", picture.size)
                ImageDraw.Draw(mask).polygon([tuple(point) for point in outline_P2.tolist()], fill=255)
                cut = picture.copy()
                cut.putalpha(mask)
                found.append(cut.crop((left, top, right, bottom)))
    return found


# -- the sets --

BCCD = Setup(
    name="bccd",
    words="BCCD, real photographs of blood cells, 640 x 480",
    overrides=("dataset=voc", f"dataset.source={SHARED / 'bccd_voc'}", "train.steps=200"),
    held_out=("val", "test"),
    rare="Platelets",
    blur=(0.5, 0.7, 1.0),
    strange=pasted,
    new=(25, 50),
    halves=1000,
    trials=100,
)
SHAPES = Setup(
    name="shapes",
    words="generated shapes, 64 x 64",
    overrides=(
        *("model=faster_rcnn_tiny", "dataset.size=64", "dataset.train=1000", "dataset.val=800", "train.steps=1500"),
        *("train.batch=16", "train.optimizer.lr=0.004", "train.optimizer.weight_decay=0.0001", "train.augment.crop=0"),
    ),
    held_out=("val",),
    rare="disc",
    blur=(0.3, 0.5, 0.7),
    strange=lambda image_HW3, number: lozenges(number),
    new=(50, 200),
    halves=500,
    trials=50,
)


# -- alarms --


@cache
def monitor_config() -> MonitorConfig:
    """The defaults, with fewer relabellings."""
    return replace(settings.load([], CHECKOUT).monitor, permutations=PERMUTATIONS, least=10)


def halves(pool: Observations, times: int) -> Iterator[tuple[Observations, Observations]]:
    """The pool cut in two at random, again and again."""
    rng = np.random.default_rng(SEED)
    for _ in range(times):
        order = rng.permutation(len(pool))
        yield pool.take(order[: len(pool) // 2]), pool.take(order[len(pool) // 2 :])


def draws(
    clean: Observations, planted: Observations, share: float, weight_N: NDArray[np.float64], new: int, times: int
) -> Iterator[tuple[Observations, Observations]]:
    """`new` pictures, drawn by weight, against a random half of the others' pool; no picture is on both sides.

    Of the new ones `share` have the fault, the rest are clean.
    """
    rng = np.random.default_rng([SEED, new])
    for _ in range(times):
        order = rng.permutation(len(clean))
        known, rest = order[: len(clean) // 2], order[len(clean) // 2 :]
        chosen = rng.choice(rest, new, replace=False, p=weight_N[rest] / weight_N[rest].sum())
        faulty = round(share * new)
        yield Observations.joined([planted.take(chosen[:faulty]), clean.take(chosen[faulty:])]), clean.take(known)


def judged(pairs: Iterator[tuple[Observations, Observations]], classes: int) -> list[Verdict]:
    """The verdict on each pair."""
    cfg = monitor_config()
    return [judge(new, known, cfg, classes, seed) for seed, (new, known) in enumerate(pairs)]


def interval(hits: int, of: int) -> str:
    """`12 of 1000 (0.6 to 2.1 %)`: Clopper and Pearson's 95 % interval."""
    from scipy.stats import binomtest

    around = binomtest(hits, of).proportion_ci()
    return f"{hits} of {of} ({100 * around.low:.1f} to {100 * around.high:.1f} %)"


def wrong_ways(pairs: Iterator[tuple[Observations, Observations]]) -> tuple[int, int]:
    """Alarms, at the same rate, of tests of single objects: by scores, and by sizes (Kolmogorov and Smirnov)."""
    from scipy.stats import ks_2samp

    cfg, hits = monitor_config(), [0, 0]
    for new, known in pairs:
        for place, name in enumerate(("scores", "sizes")):
            p = ks_2samp(values(name, new, cfg)[1], values(name, known, cfg)[1]).pvalue
            hits[place] += p <= cfg.false_alarms
    return hits[0], hits[1]


# -- the page --


def measured(setup: Setup, place: Path) -> str:
    """The section of one dataset."""
    layout = detector_of(setup, place)
    watched, dataset = watch(layout.onnx, layout, threads=1), open_dataset(layout.validated)
    classes = len(watched.detector.classes)

    def look(fault: str, plant: Plant, splits: Sequence[str] = setup.held_out) -> Observations:
        return looked_at(setup, layout, watched, splits, fault, plant)

    clean, train = look("clean", as_it_is), look("clean", as_it_is, ["train"])
    ap = json.loads((layout.reports("evaluate") / "metrics.json").read_bytes())["bbox/AP"]
    pool = f"{len(clean)} held-out pictures ({' and '.join(setup.held_out)})"
    head = f"## {setup.words}\n\n{pool}, {len(clean.score_V)} detections; the detector has AP {ap:.3f} on val."
    faults = {
        **{f"blur, {s:g} px": (look(f"blur {s}", blurred(s)), 1.0) for s in setup.blur},
        **{f"darker, x {f:g}": (look(f"dark {f}", darkened(f)), 1.0) for f in DARKER},
        **{f"new class in {s:.0%} of the pictures": (look("new class", setup.strange), s) for s in STRANGE},
    }
    return "\n\n".join(
        [
            head,
            false_alarms(setup, clean, train, classes, len(dataset.split(setup.held_out[0]).images)),
            power(setup, dataset, clean, faults, classes),
        ]
    )


def false_alarms(setup: Setup, clean: Observations, train: Observations, classes: int, first: int) -> str:
    """Of random halves; and what other ways of testing would give. `first` pictures are those of the first held-out split."""
    cfg = monitor_config()
    verdicts = judged(halves(clean, setup.halves), classes)
    single = {
        name: sum(one.p <= cfg.false_alarms for v in verdicts for one in v.compared if one.name == name)
        for name in cfg.statistics
    }
    alarms = sum(bool(v.drifted) for v in verdicts)
    uncorrected = sum(any(one.p <= cfg.false_alarms for one in v.compared) for v in verdicts)
    scores, sizes = wrong_ways(halves(clean, setup.halves))
    of = setup.halves
    rows = [
        ["**the alarm**", interval(alarms, of)],
        *([f"{name}, uncorrected p <= {cfg.false_alarms:g}", interval(hits, of)] for name, hits in single.items()),
        ["wrong: any statistic, uncorrected", interval(uncorrected, of)],
        ["wrong: single objects by scores (KS)", interval(scores, of)],
        ["wrong: single objects by sizes (KS)", interval(sizes, of)],
    ]
    lines = ["### False alarms", f"Random halves of the held-out pictures, `monitor.false_alarms={cfg.false_alarms:g}`:"]
    lines.append("\n".join(["| test | alarms |", "|---|---|", *(f"| {name} | {hits} |" for name, hits in rows)]))
    own = judge(train, clean, cfg, classes, SEED)
    lines.append(
        "The training pictures against the held-out ones, once: " + ", ".join(f"{c.name} p {c.p:.3f}" for c in own.compared)
    )
    if first < len(clean):
        official = judge(clean.take(np.arange(first, len(clean))), clean.take(np.arange(first)), cfg, classes, SEED)
        said = ", ".join(f"{c.name} p {c.p:.3f}" for c in official.compared)
        lines.append(
            f"The source's own test split against its val split, once, {'an alarm' if official.drifted else 'no alarm'}: {said}"
        )
    return "\n\n".join(lines)


def power(
    setup: Setup, dataset: Dataset, clean: Observations, faults: dict[str, tuple[Observations, float]], classes: int
) -> str:
    """Alarms when something is planted."""
    even = np.ones(len(clean))
    rare_N = np.concatenate([objects_of(dataset, split, setup.rare) for split in setup.held_out])
    cases = {name: (planted, share, even) for name, (planted, share) in faults.items()}
    cases |= {f"class shift, {setup.rare} x {factor:g}": (clean, 0.0, factor**rare_N) for factor in SHIFTED}
    label = dataset.classes.index(setup.rare)
    columns = ["planted", *(f"{new} new pictures" for new in setup.new), "found most often by"]
    rows = []
    for name, (planted, share, weight_N) in cases.items():
        cells, by = [], dict[str, int]()
        for new in setup.new:
            pairs = list(draws(clean, planted, share, weight_N, new, setup.trials))
            verdicts = judged(iter(pairs), classes)
            shift = f" ({share_of(label, pairs, 1):.1%} to {share_of(label, pairs, 0):.1%})" if weight_N is not even else ""
            cells.append(f"{sum(bool(v.drifted) for v in verdicts) / setup.trials:.2f}{shift}")
            for one in (one for v in verdicts for one in v.drifted):
                by[one] = by.get(one, 0) + 1
        best = sorted(by, key=lambda one: -by[one])[:3]
        rows.append([name, *cells, ", ".join(best) or "nothing"])
        print(rows[-1], flush=True)
    known = len(clean) // 2
    note = f"Share of {setup.trials} random draws with an alarm, against {known} other held-out pictures:"
    return "\n\n".join(["### Power", note, table(columns, rows)])


def share_of(label: int, pairs: Sequence[tuple[Observations, Observations]], side: int) -> float:
    """Of a class among the objects found on one side of all pairs."""
    labels = np.concatenate([values("classes", pair[side], monitor_config())[1] for pair in pairs[:20]])
    return float((labels == label).mean())


def objects_of(dataset: Dataset, split: str, name: str) -> NDArray[np.float64]:
    """Labelled objects of a class on each picture of a split."""
    own = dataset.split(split)
    label = dataset.classes.index(name)
    rows_A = own.annotations.image_A[own.annotations.label_A == label]
    return np.bincount(rows_A, minlength=len(own.images)).astype(np.float64)


def main(arguments: Sequence[str]) -> None:
    """Measure both sets, print the page and write it."""
    keep = next((word.removeprefix("keep=") for word in arguments if word.startswith("keep=")), None)
    with tempfile.TemporaryDirectory() as temporary:
        sections = [measured(setup, Path(keep or temporary)) for setup in (BCCD, SHAPES)]
    text = "\n\n".join([INTRODUCTION, *sections]) + "\n"
    print(text)
    OUT.write_text(text)


INTRODUCTION = f"""# Drift, measured

Written by `python benchmarks/drift.py`: {PERMUTATIONS} relabellings per test (of the command: `monitor.permutations`), else by
`conf/monitor/default.yaml`, seed {SEED}.

Random halves of one pool are exchangeable by construction: their rate shows that the alarm does what it promises, and what other
tests would do in its place. Whether tomorrow's pictures are independent shots of the same process is for their owner to judge.
The new class is, in BCCD, an object cut out of a COCO picture and pasted in, blurred as much as the photographs; in shapes,
pictures whose objects are all lozenges. The class shift draws a held-out picture so many times as often for each of its objects
of that class; in brackets its share of the objects found, in the reference and in the new pictures."""


if __name__ == "__main__":
    main(sys.argv[1:])
