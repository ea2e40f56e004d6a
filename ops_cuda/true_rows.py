"""Positions of the true entries, as many as there are: how a traced graph drops padded rows.

What: 0, then the position of every true entry in rising order. The leading 0 keeps the result from being empty, which
convolutions of some runtimes refuse; callers must not mind row 0 twice.
Limits: the length depends on the values, which a GPU would wait for: made for graphs that are exported; CPU tensors only.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY


def true_rows(flags_S: Tensor) -> Tensor:
    """int64 [1 + number of true entries] from bool [S]."""
    rows_M: Tensor = torch.ops.detectline.true_rows(flags_S)
    return rows_M


# -- CPU twin --


def _true_rows_cpu(flags: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.nonzero(flags).squeeze(1)])


# -- registration: schema, fake, ONNX --

LIBRARY.define("true_rows(Tensor flags) -> Tensor")
LIBRARY.impl("true_rows", _true_rows_cpu, "CPU")


def _true_rows_fake(flags: Tensor) -> Tensor:
    return flags.new_empty(torch.library.get_ctx().new_dynamic_size(min=1), dtype=torch.int64)


torch.library.register_fake("detectline::true_rows", _true_rows_fake, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators."""
    import onnxscript

    op: Any = onnxscript.opset20

    def true_rows_onnx(flags):  # type: ignore[no-untyped-def]
        zero = op.Constant(value_ints=[0])
        return op.Concat(zero, op.Squeeze(op.NonZero(flags), zero), axis=0)

    return torch.ops.detectline.true_rows.default, true_rows_onnx
