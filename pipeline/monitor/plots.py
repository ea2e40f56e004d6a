"""Each statistic as a picture: histograms of the new pictures over those of the reference."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.monitor.config import MonitorConfig, Statistic
from pipeline.monitor.drift import Compared, values
from pipeline.monitor.observations import Observations
from pipeline.monitor.two_sample import standardised

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEW, KNOWN = "#d1495b", "#30638e"
BINS = 24
MOST_CLASSES = 20


def overlaid(one: Compared, new: Observations, known: Observations, cfg: MonitorConfig, classes: Sequence[str]) -> bytes:
    """PNG of one statistic; the same numbers give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(4.6, 2.9), layout="constrained")
    FigureCanvasAgg(picture)  # not pyplot: no global state, no window system
    axes = picture.subplots()
    if one.name == "embedding":
        _scatter(axes, new, known)
    elif one.name == "classes":
        _bars(axes, new, known, cfg, classes)
    else:
        _histograms(axes, values(one.name, new, cfg)[1], values(one.name, known, cfg)[1], one.name)
        axes.set(xlabel=one.name, ylabel="share")
    axes.legend(fontsize="small")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _histograms(axes: "Axes", new_V: NDArray[np.float64], known_V: NDArray[np.float64], name: Statistic) -> None:
    both_V = np.concatenate([new_V, known_V])
    if not len(both_V):
        return
    if name == "objects":
        low, high = int(both_V.min()), int(both_V.max())
        edges = np.arange(low, high + 1 + (step := max(1, (high - low) // BINS)), step) - 0.5
    else:
        edges = np.linspace(both_V.min(), both_V.max() + 1e-9, BINS + 1)
    for value_V, colour, label in ((known_V, KNOWN, "reference"), (new_V, NEW, "new")):
        weights = np.full(len(value_V), 1 / max(len(value_V), 1))
        axes.hist(value_V, edges.tolist(), weights=weights, color=colour, alpha=0.5, label=label)


def _bars(axes: "Axes", new: Observations, known: Observations, cfg: MonitorConfig, classes: Sequence[str]) -> None:
    """Shares of the classes, the most frequent ones when there are many."""
    counts = [
        np.bincount(values("classes", of, cfg)[1].astype(np.int64), minlength=len(classes)).astype(float) for of in (known, new)
    ]
    shown = np.argsort(-(counts[0] + counts[1]), kind="stable")[:MOST_CLASSES]
    at = np.arange(len(shown))
    for count_C, colour, label, shift in ((counts[0], KNOWN, "reference", -0.2), (counts[1], NEW, "new", 0.2)):
        axes.bar(at + shift, count_C[shown] / max(count_C.sum(), 1), 0.4, color=colour, label=label)
    names = [classes[place].replace("$", r"\$") for place in shown.tolist()]  # a dollar sign would start mathematics
    axes.set_xticks(at, names, rotation=0 if len(shown) <= 5 else 90, fontsize="small")
    axes.set_ylabel("share of the objects")


def _scatter(axes: "Axes", new: Observations, known: Observations) -> None:
    """The two directions in which all pictures together differ the most."""
    vector_NE = standardised(np.concatenate([new.embedding_NE, known.embedding_NE]))
    left, strength, _ = np.linalg.svd(vector_NE, full_matrices=False)
    place_N2 = left[:, :2] * strength[:2]
    axes.scatter(place_N2[len(new) :, 0], place_N2[len(new) :, 1], s=9, color=KNOWN, alpha=0.6, label="reference")
    axes.scatter(place_N2[: len(new), 0], place_N2[: len(new), 1], s=9, color=NEW, alpha=0.6, label="new")
    axes.set(xlabel="first principal component", ylabel="second", xticks=[], yticks=[])
