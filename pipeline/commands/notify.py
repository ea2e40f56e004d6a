"""python -m pipeline notify [overrides]: tell Prefect that the dataset changed, so that what listens (the retraining) runs."""

from collections.abc import Sequence

from pipeline import settings
from pipeline.events import CHANGED, RESOURCE, emit


def run(arguments: Sequence[str]) -> None:
    """Emit `dataset.changed` for the dataset of the settings. UserError when no server takes it."""
    chosen = settings.load(arguments)
    name = chosen.dataset.kind
    emit(CHANGED, f"{RESOURCE}{name}", {"source": chosen.dataset.source, "by": "hand"})
    print(f"{CHANGED} was told of {RESOURCE}{name}")
