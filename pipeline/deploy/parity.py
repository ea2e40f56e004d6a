"""The gate: torch, the float file and the INT8 file on the same pictures, their AP side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.deploy.config import Gate
from pipeline.errors import GateError
from pipeline.evaluation.coco import BoxMetrics

REFERENCE = "torch"


@dataclass(frozen=True, slots=True)
class Parity:
    """Box metrics of each backend on one split; `torch` is what the files are held against."""

    metrics: Mapping[str, BoxMetrics]

    def loss(self, backend: str) -> float:
        """AP that `backend` loses against torch; negative when it gains."""
        return self.metrics[REFERENCE].numbers["bbox/AP"] - self.metrics[backend].numbers["bbox/AP"]

    def worst_class(self, backend: str) -> tuple[str, float]:
        """The class that loses most AP in `backend`, and how much."""
        reference, other = self.metrics[REFERENCE].per_class, self.metrics[backend].per_class
        losses = {name: value - other.get(name, 0.0) for name, value in reference.items()}
        name = max(losses, key=lambda key: losses[key])
        return name, losses[name]

    def figures(self) -> dict[str, float]:
        """Flat figures for metrics.json: AP and AP50 per backend and the losses of the files."""
        figures = {}
        for backend, metrics in self.metrics.items():
            figures |= {f"export/{backend}/{name}": metrics.numbers[f"bbox/{name}"] for name in ("AP", "AP50")}
        return figures | {f"export/{backend}/AP_loss": self.loss(backend) for backend in self.metrics if backend != REFERENCE}

    def require(self, gate: Gate) -> None:
        """GateError when a file loses (or, for the float file, differs by) more than the gate allows, naming the worst class."""
        limits = {"onnx": gate.fp32_ap, "int8": gate.int8_ap}
        lost = {"onnx": abs(self.loss("onnx")), "int8": self.loss("int8")}
        for backend, limit in limits.items():
            if not lost[backend] <= limit:
                name, loss = self.worst_class(backend)
                setting = "export.gate.fp32_ap" if backend == "onnx" else "export.gate.int8_ap"
                raise GateError(
                    f"export: the {backend} file differs from torch by {lost[backend]:.4f} AP on the validation split; "
                    f"{setting} allows {limit:g}\n  class {name} lost most: {loss:.4f} AP\n"
                    + ("  keep more layers in float (quantize.float_layers) or calibrate on more pictures (quantize.pictures)" if backend == "int8" else "  this is a fault of the export: please report it with the model's config")
                )
