"""How many convolutions of a file really run in INT8: counted in the file itself, not in the recipe that asked for it."""

from dataclasses import dataclass

from onnx import ModelProto, TensorProto
from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX


@dataclass(frozen=True, slots=True)
class Counts:
    """Convolutions are counted twice: by weight (what was trained), and by node (what runs: a head's run once per level)."""

    weights: int
    weights_int8: int
    nodes: int
    nodes_int8: int

    @property
    def share(self) -> float:
        """Share of weights in INT8, 0..1. One that also runs in float somewhere counts as float."""
        return self.weights_int8 / max(1, self.weights)

    @property
    def share_nodes(self) -> float:
        """Share of nodes in INT8, 0..1."""
        return self.nodes_int8 / max(1, self.nodes)


def count_int8(model: ModelProto) -> Counts:
    """Count `Conv` nodes; INT8 are those whose weight is stored as int8 and whose input comes out of a DequantizeLinear."""
    made = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    in_int8: dict[str, list[bool]] = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        data, weight = made.get(node.input[0]), made.get(node.input[1])
        source = weight.input[0] if weight is not None and weight.op_type == "DequantizeLinear" else node.input[1]
        is_int8 = stored.get(source) == TensorProto.INT8 and data is not None and data.op_type == "DequantizeLinear"
        in_int8.setdefault(source.removesuffix(TENSOR_NAME_QUANT_SUFFIX), []).append(is_int8)
    nodes = [is_int8 for runs in in_int8.values() for is_int8 in runs]
    return Counts(len(in_int8), sum(all(runs) for runs in in_int8.values()), len(nodes), sum(nodes))
