"""One ONNX graph of the whole detector: dynamic batch and size, standard operators only."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import ops_cuda
from pipeline.deploy import raw_heads
from pipeline.detector.detector import Detector
from pipeline.detector.rotated.detectors import RotatedFasterRCNN, RotatedProposalNetwork
from pipeline.files import write_atomically
from pipeline.predict.session import INPUTS, PROPOSALS
from pipeline.structures import Images

TRACED_SIDE = 160
"""Side in pixels of the picture that is traced; it does not bind the file, and a small one traces faster."""
LARGEST_SIDE = 16384
"""Pixels; the tracer wants a bound, the file knows none."""
TRACED_PROPOSALS = 12
"""Proposals that are traced; the file takes any number."""


class WholeGraph(nn.Module):
    """`detect` between plain tensors: pixels uint8 [N, 3, H, W], sizes int64 [N, 2] -> what the detector's result names.

    The detector's parts hang directly below it, so that the file's tensors have the names of the detector's parameters.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        for name, part in detector.named_children():
            self.add_module(name, part)
        self._detect = [detector.detect]  # in a list: a module here would be a second path to every parameter

    def forward(self, pixels_N3HW: Tensor, sizes_N2: Tensor, proposals_NP4: Tensor | None = None) -> tuple[Tensor, ...]:
        """The result's tensors, in the order of its names."""
        return tuple(self._detect[0](Images(pixels_N3HW, sizes_N2, proposals_NP4)).named().values())


def export_onnx(detector: Detector, path: Path, opset: int) -> None:
    """Trace `detector` (on CPU, put into evaluation mode) and write it to `path`; of a rotated one the raw heads.

    The batch is free, and so are height and width as long as they are multiples of the detector's divisor.
    """
    divisor = detector.divisor
    height, width = (max(2 * detector.coarsest, TRACED_SIDE // divisor * divisor) + more for more in (0, divisor))
    pixels_N3HW = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    sizes_N2 = torch.tensor([[height, width], [height - 1, width - 1]])
    batch = torch.export.Dim("batch", min=1, max=1024)
    # A smallest size above one cell keeps the tracer from specialising shapes of the coarsest level.
    least = 2 * detector.coarsest // divisor
    rows, columns = (torch.export.Dim(name, min=least, max=LARGEST_SIDE // divisor) * divisor for name in ("rows", "columns"))
    inputs: dict[str, Tensor] = dict(zip(INPUTS, (pixels_N3HW, sizes_N2), strict=True))
    shapes: tuple[dict[int, Any], ...] = ({0: batch, 2: rows, 3: columns}, {0: batch})
    if detector.takes_proposals:
        inputs[PROPOSALS] = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).expand(2, TRACED_PROPOSALS, 4).clone()
        shapes = (*shapes, {0: batch, 1: torch.export.Dim("proposals", min=2, max=2**20)})
    graph: nn.Module = WholeGraph(detector.eval())
    if isinstance(detector, RotatedFasterRCNN | RotatedProposalNetwork):
        regions = torch.export.Dim("regions", min=1, max=2**20)
        graph, names = raw_heads.RawHeads(detector), raw_heads.output_names(detector)
        inputs |= zip(raw_heads.input_names(detector), raw_heads.traced_regions(detector), strict=True)
        shapes = (*shapes, *({0: regions} for _ in raw_heads.input_names(detector)))
    else:
        with torch.no_grad():
            names = list(detector.detect(Images(*inputs.values())).named())
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=names,
            dynamic_shapes=shapes,
            custom_translation_table=ops_cuda.onnx_translations(),
            verbose=False,
        )
    assert program is not None
    model = without_traces(program.model_proto)
    if isinstance(detector, RotatedFasterRCNN | RotatedProposalNetwork):
        onnx.helper.set_model_props(model, raw_heads.metadata(detector))
    write_atomically(path, model.SerializeToString(deterministic=True))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` less the tracer's notes on every node: stack traces with this machine's paths, other bytes in every run."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
    return model


class _quiet:
    """Silences the named loggers' warnings while the block runs: the tracer prints hundreds of lines of its own concerns."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
