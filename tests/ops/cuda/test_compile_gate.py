"""The compile gate: every kernel passes, and planted faults do not."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.ops.cuda.device import SIMULATED

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(SIMULATED, reason="the simulator does not compile")]

SHARES = 6
"""Tests that the kernels are dealt out to, so that CI's workers are busy alike."""
REPRODUCTION = "`python -m ops_cuda.compile_gate` prints the table"


@pytest.mark.parametrize("share", range(SHARES))
def test_every_kernel_passes(share: int) -> None:
    from ops_cuda.compile_gate import rows, table

    found = list(rows(processes=1, share=(share, SHARES)))
    print(table(found))
    assert len({(row.kernel, row.dtype) for row in found}) * 3 == len(found)
    assert [row for row in found if row.faults] == [], REPRODUCTION
    assert all(row.registers > 0 for row in found), "the assembler's notes were not understood"


def planted(body: Any, parameters: str) -> Any:
    from ops_cuda._compilation import compile_kernel
    from ops_cuda._numba import KERNELS, Kernel
    from ops_cuda.compile_gate import judge

    kernel = Kernel("planted", parameters, {torch.float32: body}, 256)
    KERNELS.remove(kernel)
    return judge("planted", torch.float32, (8, 0), compile_kernel(kernel, torch.float32, (8, 0)), {})


def test_a_silent_promotion_is_found() -> None:
    from ops_cuda._numba import cuda

    def body(x: Any, count: int) -> None:
        i = cuda.grid(1)
        if i < count:
            x[i] = x[i] * 0.5 + i

    assert "f64" in planted(body, "f32* x, i64 count").faults


def test_a_32_bit_product_in_an_address_is_found() -> None:
    from ops_cuda._numba import cuda

    def narrow(x: Any, rows: int, columns: int) -> None:
        i = cuda.grid(1)
        x[np.int32(np.int32(i) * np.int32(columns)) + rows] = np.float32(1)

    def wide(x: Any, rows: int, columns: int) -> None:
        i = cuda.grid(1)
        x[i * columns + rows] = np.float32(1)

    assert planted(narrow, "f32* x, i64 rows, i64 columns").faults == ("narrow",)
    assert planted(wide, "f32* x, i64 rows, i64 columns").faults == ()


def test_spills_are_read_from_the_assemblers_notes() -> None:
    from ops_cuda._compilation import Compiled
    from ops_cuda.compile_gate import judge

    log = "  8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\nptxas info  : Used 255 registers, used 1 barriers"
    row = judge("planted", torch.float32, (9, 0), Compiled(b"", "", "", log), {})
    assert (row.spills, row.stack, row.registers, row.faults) == (28, 8, 255, ("spills",))
    excused = judge("planted", torch.float32, (9, 0), Compiled(b"", "", "", log), {"spills": "a reason"})
    assert excused.faults == () and excused.excused == ("spills: a reason",)
