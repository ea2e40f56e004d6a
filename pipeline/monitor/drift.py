"""New pictures against reference pictures: one test per statistic, and one alarm with a set false-alarm rate over all of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.monitor.config import MonitorConfig, Statistic
from pipeline.monitor.observations import LOOKS, Observations
from pipeline.monitor.two_sample import Comparison, Nominal, Ordered, Vectors, holm, p_values

MEANING: dict[Statistic, str] = {
    "embedding": "what the pictures show, by an inner layer of the detector",
    "scores": "scores of all detections",
    "classes": "shares of the classes among the objects found",
    "sizes": "size of an object's box, as a share of the picture's side",
    "objects": "objects found per picture",
    "brightness": "mean grey level, 0 to 255",
    "contrast": "deviation of the grey levels",
    "sharpness": "log10 of the variance of the Laplacian in the sharpest ninth",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One statistic."""

    name: Statistic
    p: float
    """P-value of its own permutation test."""
    adjusted: float
    """Holm's, over all statistics."""
    effect: float
    """0 (equal) to 1."""
    drifted: bool
    new: float | None
    """Mean over the new pictures or objects; None where a mean says nothing."""
    known: float | None
    """Mean over the reference."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All statistics, and whether new pictures differ beyond chance."""

    compared: tuple[Compared, ...]

    @property
    def drifted(self) -> tuple[Statistic, ...]:
        """Names of the statistics past the alarm, the surest first."""
        return tuple(one.name for one in sorted(self.compared, key=lambda one: (one.p, -one.effect)) if one.drifted)

    def figures(self) -> dict[str, Any]:
        """Flat numbers for monitor.json and MLflow."""
        flat: dict[str, Any] = {"monitor/alarm": int(bool(self.drifted))}
        for one in self.compared:
            flat |= {f"monitor/p/{one.name}": one.p, f"monitor/effect/{one.name}": one.effect}
        return flat


def judge(new: Observations, known: Observations, cfg: MonitorConfig, classes: int, seed: int) -> Verdict:
    """Test every statistic of `cfg`. UserError when either set is too small to tell anything."""
    require_enough(len(new), "readable new", cfg.least)
    require_enough(len(known), "reference", cfg.least)
    both = Observations.joined([new, known])
    tests: dict[str, Comparison] = {name: comparison(name, both, cfg, classes) for name in cfg.statistics}
    p = p_values(tests, len(new), len(known), cfg.permutations, seed)
    adjusted = dict(zip(tests, holm([p[name] for name in tests]), strict=True))
    new_N = np.arange(len(both)) < len(new)
    return Verdict(
        tuple(
            Compared(
                name,
                p[name],
                adjusted[name],
                tests[name].effect(new_N),
                adjusted[name] <= cfg.false_alarms,
                _mean(name, new, cfg),
                _mean(name, known, cfg),
            )
            for name in cfg.statistics
        )
    )


def require_enough(pictures: int, what: str, least: int) -> None:
    """UserError unless there are `least` pictures."""
    if pictures < least:
        raise UserError(
            f"monitor: {pictures} {what} pictures, and at least {least} are needed (monitor.least={least})\n"
            "  with fewer, hardly any difference can be told from chance: collect more, or compare longer periods"
        )


def comparison(name: Statistic, both: Observations, cfg: MonitorConfig, classes: int) -> Comparison:
    """The test of one statistic on both sets together."""
    if name == "embedding":
        return Vectors(both.embedding_NE)
    if name == "classes":
        sure_V = both.score_V >= cfg.score
        return Nominal(both.picture_V[sure_V], both.label_V[sure_V], len(both), classes)
    return Ordered(*values(name, both, cfg), len(both))


def values(name: Statistic, of: Observations, cfg: MonitorConfig) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of pictures [V] and the values [V] that one statistic sees there; classes are numbers of labels."""
    every_N = np.arange(len(of))
    if name in LOOKS:
        return every_N, of.looks_N3[:, LOOKS.index(name)]
    if name == "scores":
        kept_V = of.score_V >= cfg.low_score
        return of.picture_V[kept_V], of.score_V[kept_V]
    sure_V = of.score_V >= cfg.score
    if name == "objects":
        return every_N, np.bincount(of.picture_V[sure_V], minlength=len(of)).astype(np.float64)
    return of.picture_V[sure_V], (of.size_V if name == "sizes" else of.label_V.astype(np.float64))[sure_V]


def _mean(name: Statistic, of: Observations, cfg: MonitorConfig) -> float | None:
    if name in ("embedding", "classes"):
        return None
    value_V = values(name, of, cfg)[1]
    return float(value_V.mean()) if len(value_V) else None


def strangeness(new: Observations, known: Observations, neighbours: int = 5) -> NDArray[np.float64]:
    """How far each new picture [N] is from the reference: mean distance to its nearest reference pictures' vectors.

    In units of the same distance between reference pictures (their median): 1 is usual.
    """
    from pipeline.monitor.two_sample import squared_distances, whitened

    vectors = whitened(np.concatenate([new.embedding_NE, known.embedding_NE]))
    apart_NN = np.sqrt(squared_distances(vectors))
    np.fill_diagonal(apart_NN, np.inf)
    to_known_NK = np.sort(apart_NN[:, len(new) :], axis=1)[:, : min(neighbours, len(known) - 1)]
    mean_N = to_known_NK.mean(axis=1)
    usual = float(np.median(mean_N[len(new) :]))
    return np.asarray(mean_N[: len(new)] / usual if usual > 0 else mean_N[: len(new)], np.float64)
