"""The gate: torch, the float file and the INT8 file on the same pictures, their AP side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.deploy.config import Gate
from pipeline.errors import GateError
from pipeline.evaluation.metrics import Metrics
from pipeline.tasks import FIGURE, TITLE, Task

REFERENCE = "torch"
FLOAT_ADVICE = "this is a fault of the export: please report it with the model's config"
INT8_ADVICE = (
    "keep more layers in float (a lower quantize.held_loss, or quantize.float_layers by name),"
    " or calibrate on more pictures (quantize.pictures)"
)


@dataclass(frozen=True, slots=True)
class Parity:
    """Metrics of one task of each backend on one split; `torch` is what the files are held against."""

    metrics: Mapping[str, Metrics]

    @property
    def task(self) -> Task:
        """What was measured."""
        return self.metrics[REFERENCE].task

    @property
    def figure(self) -> str:
        """The deciding figure, for people."""
        return FIGURE[self.task] if self.task == "bbox" else f"{FIGURE[self.task]} of {TITLE[self.task]}"

    def loss(self, backend: str) -> float:
        """What `backend` loses of the deciding figure against torch; negative when it gains."""
        return self.metrics[REFERENCE].value - self.metrics[backend].value

    def worst_class(self, backend: str) -> str:
        """The class that loses most AP in `backend`, and how much, as a line for people."""
        reference, other = self.metrics[REFERENCE].per_class, self.metrics[backend].per_class
        losses = {name: value - other.get(name, 0.0) for name, value in reference.items()}
        if not losses:
            return "no class has a truth in this split: there was nothing to measure"
        name = max(losses, key=lambda key: losses[key])
        return f"class {name} lost most: {losses[name]:.4f} {FIGURE[self.task]}"

    def figures(self) -> dict[str, float]:
        """Flat figures for metrics.json: the first two per backend and the losses of the files; but for boxes as <task>/AP ..."""
        what = "" if self.task == "bbox" else f"{self.task}/"
        figures: dict[str, float] = {}
        for backend, metrics in self.metrics.items():
            values = {f"export/{backend}/{what}{name}": metrics.numbers[f"{self.task}/{name}"] for name in metrics.shown[:2]}
            figures |= {name: value for name, value in values.items() if value >= 0}
        losses = {
            f"export/{backend}/{what}{FIGURE[self.task]}_loss": self.loss(backend)
            for backend in self.metrics
            if backend != REFERENCE
        }
        return figures | losses

    def proves_nothing(self) -> bool:
        """Whether the deciding figure of the detector as trained is 0: no file can lose from that."""
        return self.metrics[REFERENCE].value == 0

    def require(self, gate: Gate) -> None:
        """GateError when nothing could be measured, or the float file differs or the INT8 file loses more than the gate allows.

        It names the class that lost most.
        """
        if self.metrics[REFERENCE].value < 0:
            raise GateError(
                "export: the split has no label to measure on, so nothing is proven\n  name another by evaluate.split"
            )
        checks = [
            ("onnx", abs(self.loss("onnx")), "export.gate.fp32_ap", gate.fp32_ap, FLOAT_ADVICE),
        ]
        # `int8` as this host runs the file, `int8_exact` with every node computed as written (VNNI, ARM, TensorRT).
        checks += [
            (name, self.loss(name), "export.gate.int8_ap", gate.int8_ap, INT8_ADVICE)
            for name in ("int8", "int8_exact")
            if name in self.metrics
        ]
        for backend, lost, setting, limit, advice in checks:
            if not lost <= limit:
                raise GateError(
                    f"export: the {backend} file differs from torch by {lost:.4f} {self.figure};"
                    f" {setting} allows {limit:g}\n"
                    f"  {self.worst_class(backend)}\n  {advice}"
                )
