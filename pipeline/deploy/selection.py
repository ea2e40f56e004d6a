"""Which convolutions go back to float: as few of the most sensitive as make the loss of AP hold.

Chosen on held training pictures, which neither the calibration saw nor export measures: were it the validation split, export's
figure there would be the best of several tries instead of a proof. The loss is paired (the float and the INT8 file on the same
pictures), so that a few dozen pictures tell a loss from chance.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.data.dataset import Split
from pipeline.deploy.config import QuantizeConfig
from pipeline.deploy.quantization import write_int8
from pipeline.deploy.recipe import Recipe
from pipeline.deploy.sensitivity import HOSTS, Sensitivities
from pipeline.errors import DataError, GateError
from pipeline.evaluation.coco import Engine
from pipeline.evaluation.inference import predict_split
from pipeline.evaluation.tasks import evaluate_all
from pipeline.evaluation.truth import Truth
from pipeline.predict.panoptic import Merging
from pipeline.predict.preprocess import Input
from pipeline.predict.session import OnnxBackend
from pipeline.tasks import Task

ENGINE: Engine = "hotcoco"
MOST_DETECTIONS, BATCH = 100, 8
"""COCO's own limit, and the quick engine: two files are compared with each other, no figure is reported outside."""
NAMED = 5
"""Most sensitive convolutions that an error names."""


class HeldPictures:
    """Pictures with labels that the float and INT8 files are held against."""

    def __init__(
        self,
        split: Split,
        truth: Truth,
        input: Input,
        divisor: int,
        threads: int,
        merging: Merging | None = None,
    ) -> None:
        """Held against `truth`, the labels of `split`. Its tasks count alike: the one that loses most decides."""
        self.split, self.truth, self.input = split, truth, input
        self.ids = truth.category_ids_K.tolist()
        self.divisor, self.threads, self.merging = divisor, threads, merging

    def losses(self, source: Path, ranges: Path, recipe: Recipe) -> dict[str, float]:
        """AP that the recipe's file loses against the float file `source`, by kind of host: the largest over the tasks."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            write_int8(source, ranges, recipe, file)
            whole = self._float_ap(str(source))
            measured = {name: self.ap(file, optimize) for name, optimize in HOSTS.items()}
        return {name: max(whole[task] - ap[task] for task in whole) for name, ap in measured.items()}

    def ap(self, file: Path, optimize: bool) -> dict[Task, float]:
        """The deciding figure of each task of an exported file. DataError when the pictures have no label."""
        backend = OnnxBackend(file, self.threads, optimize)
        found = predict_split(backend, self.split, self.input, self.divisor, BATCH, self.ids, merging=self.merging)
        metrics = evaluate_all(self.truth, found, ENGINE, MOST_DETECTIONS)
        values = {task: one.value for task, one in metrics.items()}
        if min(values.values()) < 0:
            wrong = f"none of the {len(self.split.images)} pictures held back from calibration has a label to measure on"
            raise DataError("quantize", wrong, "take more of them: quantize.held_pictures")
        return values

    @cache  # noqa: B019  # one object per stage run, which ends with it
    def _float_ap(self, source: str) -> dict[Task, float]:
        return self.ap(Path(source), optimize=True)


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of convolutions in float, and the AP that the file lost with it, by kind of host."""

    kept_float: tuple[str, ...]
    losses: dict[str, float]

    @property
    def loss(self) -> float:
        """The larger of the losses."""
        return max(self.losses.values())


@dataclass(slots=True)
class Choice:
    """How the search went."""

    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    """The trial with the fewest convolutions in float whose loss holds."""

    @property
    def last(self) -> Trial:
        """The best trial, or, when none held, the last: as many in float as are allowed."""
        return self.best or self.trials[-1]

    def require(self, recipe: Recipe, cfg: QuantizeConfig, sensitivities: Sensitivities) -> None:
        """GateError, naming the most sensitive convolutions, when no trial held."""
        if self.best is not None:
            return
        total, in_float = len(recipe.quantized + recipe.kept_float), len(recipe.kept_float)
        named = ", ".join(f"{name} ({sensitivities.layers[name]:.1f} dB)" for name in sensitivities.worst_first()[:NAMED])
        raise GateError(
            f"quantize: with {in_float} of {total} convolutions in float the INT8 file still loses {self.last.loss:.4f} AP"
            f" on held pictures; quantize.held_loss={cfg.held_loss:g} allows less,"
            f" quantize.share_least={cfg.share_least:g} no more in float\n"
            f"  most sensitive: {named}\n"
            "  calibrate on more pictures (quantize.pictures) or by quantize.calibrator=percentile; or accept more by"
            " quantize.held_loss, or fewer in INT8 by quantize.share_least"
        )


def choose(worst_first: Sequence[str], most: int, limit: float, losses: Callable[[Sequence[str]], dict[str, float]]) -> Choice:
    """Find the smallest number of the worst convolutions, at most `most`, whose return to float makes every loss <= `limit`.

    By bisection, taking the loss to fall as more return: it does on the whole, and each trial runs the detector. `losses` tells
    the loss by kind of host for a set in float.
    """
    choice = Choice()

    def holds(number: int) -> bool:
        kept = tuple(worst_first[:number])
        trial = Trial(kept, losses(kept))
        choice.trials.append(trial)
        if trial.loss <= limit and (choice.best is None or number < len(choice.best.kept_float)):
            choice.best = trial
        return trial.loss <= limit

    most = min(most, len(worst_first))
    if holds(0) or most == 0 or not holds(most):
        return choice
    low, high = 0, most  # misses, holds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return choice


def most_in_float(everything: Recipe, share_least: float) -> int:
    """How many of the recipe's convolutions may still return to float."""
    total = len(everything.quantized) + len(everything.kept_float)
    allowed = total - math.ceil(share_least * total - 1e-9)
    return max(0, allowed - len(everything.kept_float))


def require_share(int8: int, total: int, cfg: QuantizeConfig) -> None:
    """GateError when fewer convolutions are in INT8 than `quantize.share_least` wants: too many were named by hand."""
    if int8 < cfg.share_least * total - 1e-9:
        raise GateError(
            f"quantize: {int8} of {total} convolutions are in INT8; quantize.share_least={cfg.share_least:g} wants more\n"
            f"  name fewer in quantize.float_layers ({', '.join(cfg.float_layers) or 'none now'}), or lower quantize.share_least"
        )
