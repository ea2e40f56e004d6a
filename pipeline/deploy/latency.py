"""Latencies of the exported files: measured at export, shown in the model card that goes to MLflow. No torch, no ONNX here."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

from pipeline.markdown import table

PREFIX = "export/milliseconds/"
"""Of their names in timing.json."""
TIMED, WARM_UP = 10, 2
"""Runs that a latency is the median of, and runs before them that do not count."""


def milliseconds(run: Callable[[], object]) -> float:
    """Median time of `run`, to the microsecond."""
    times = []
    for _ in range(WARM_UP + TIMED):
        began = perf_counter()
        run()
        times.append(1000 * (perf_counter() - began))
    return round(median(times[WARM_UP:]), 3)


def with_latency(card: str, times: Mapping[str, float]) -> str:
    """`card` with the latencies among `times`, those of one run: another host and another run give others."""
    rows = [(name.removeprefix(PREFIX), value) for name, value in times.items() if name.startswith(PREFIX)]
    if not rows:
        return card
    told = "Median of one picture at a time on the host that exported, its load included; another run gives other figures."
    return f"{card}\n## Latency\n\n{told}\n\n{table(('file', 'ms per picture'), rows)}\n"
