"""What machines that train together tell each other besides gradients: whether they do the same, and the results."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.stages.train_rank import require_same_work, share_results
from pipeline.training.distributed import Ranks


@dataclass(frozen=True, slots=True)
class Cable(Ranks):
    """Ranks of two machines, each the only one of its machine; what rank 0 says is kept in `said`."""

    said: tuple[list[Any]] = ([],)

    def on_every_machine(self, value: Any) -> Any:
        if self.first:
            self.said[0].append(value)
        return self.said[0][-1]


FIRST = Cable(rank=0, count=2, machines=2, said=([],))
SECOND = replace(FIRST, rank=1)


def test_machines_with_other_labels_or_code_are_refused() -> None:
    require_same_work("a1", FIRST)
    require_same_work("a1", SECOND)
    with pytest.raises(UserError, match=r"other settings, labels or code .*work/train/b2, there a1"):
        require_same_work("b2", SECOND)


def test_every_machine_has_the_results_and_the_first_ones_stay(tmp_path: Path) -> None:
    there, here = Layout(tmp_path / "first"), Layout(tmp_path / "second")
    for name, content in {"weights.safetensors": b"\0\1", "model.json": b"{}"}.items():
        there.detector.mkdir(parents=True, exist_ok=True)
        (there.detector / name).write_bytes(content)
    write_json(there.reports("train") / "metrics.json", {"loss": 0.5})
    here.detector.mkdir(parents=True)
    (here.detector / "of-an-earlier-run").write_bytes(b"old")
    share_results(there, FIRST)
    share_results(here, SECOND)
    for layout in (there, here):
        assert {path.name: path.read_bytes() for path in layout.detector.iterdir()} == {
            "weights.safetensors": b"\0\1",
            "model.json": b"{}",
        }
        assert (layout.reports("train") / "metrics.json").read_text().strip() == '{\n  "loss": 0.5\n}'
