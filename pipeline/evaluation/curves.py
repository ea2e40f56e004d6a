"""Precision-recall curves: as a figure for the report, and as tables for `dvc plots`."""

import csv
import io
from collections.abc import Iterable, Sequence

from pipeline.evaluation.coco import RECALLS_R, CocoMetrics, Curve

MOST_LINES = 12
"""Classes drawn one by one; a figure with more lines cannot be read, so then only the mean is drawn."""


def figure(metrics: CocoMetrics) -> bytes:
    """PNG: on the left the mean over classes at IoU 0.50, 0.75 and averaged; on the right each class at IoU 0.50.

    The same numbers give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(picture)  # not pyplot: no global state, no window system
    left, right = picture.subplots(1, 2, sharey=True)
    for values_R, label in (
        (metrics.mean.iou50_R, "IoU 0.50"),
        (metrics.mean.iou75_R, "IoU 0.75"),
        (metrics.mean.mean_R, "IoU 0.50 to 0.95"),
    ):
        left.plot(RECALLS_R, values_R, label=label)
    shown: Sequence[Curve] = metrics.curves if len(metrics.curves) <= MOST_LINES else ()
    for curve in shown:
        right.plot(RECALLS_R, curve.iou50_R, label=curve.name.replace("$", r"\$"))  # a dollar sign would start mathematics
    left.set_title("mean over classes")
    right.set_title("by class, IoU 0.50" if shown else f"{len(metrics.curves)} classes: see the table")
    for axes in (left, right):
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", loc="lower left")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


PREFIX = {"bbox": "", "segm": "mask_"}
"""Of a task's columns; other tasks' have their own name."""


def pr_table(curved: Sequence[CocoMetrics]) -> bytes:
    """CSV of the mean curves: recall, iou_50, iou_75, mean; of masks mask_iou_50 and so on, of keypoints keypoints_iou_50."""
    columns = [f"{_prefix(metrics)}{name}" for metrics in curved for name in ("iou_50", "iou_75", "mean")]
    values = [column for one in curved for column in (one.mean.iou50_R, one.mean.iou75_R, one.mean.mean_R)]
    rows = zip(RECALLS_R, *values, strict=True)
    return _csv(("recall", *columns), ([round(float(value), 6) for value in row] for row in rows))


def class_table(curved: Sequence[CocoMetrics]) -> bytes:
    """CSV of the classes that have truth: class, AP, AP50, AR; of masks mask_AP and so on, of keypoints keypoints_AP."""
    columns = [f"{_prefix(metrics)}{name}" for metrics in curved for name in ("AP", "AP50", "AR")]
    rows = zip(*(metrics.classes for metrics in curved), strict=True)
    figures = (
        [row[0].name, *(round(value, 6) for one in row for value in (one.ap, one.ap50, one.recall))]
        for row in rows
        if row[0].ap >= 0
    )
    return _csv(("class", *columns), figures)


def _prefix(metrics: CocoMetrics) -> str:
    return PREFIX.get(metrics.task, f"{metrics.task}_")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
