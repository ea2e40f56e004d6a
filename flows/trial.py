"""python -m flows.trial PLACE: train and evaluate by the settings in PLACE, and tell the curves, a line of JSON each."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline import tracking
from pipeline.errors import UserError
from pipeline.process import die_with_parent
from pipeline.settings import EvaluateStage, TrainStage

MARK = "\x1etrial "


class Told(tracking.Curves):
    """Curves that go to the worker."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One line."""
        print(f"{MARK}{json.dumps({'step': step, 'figures': dict(figures)})}", flush=True)


def main(place: Path) -> int:
    """Both stages in this process; 1 with the stage's message when one fails."""
    die_with_parent()
    try:
        with tracking.drawing(Told()):
            importlib.import_module("pipeline.stages.train").run(TrainStage.read(place / "train.json"))
        importlib.import_module("pipeline.stages.evaluate").run(EvaluateStage.read(place / "evaluate.json"))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
