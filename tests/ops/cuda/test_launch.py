"""What a launch hands to the driver, whose entry is replaced: addresses and scalars in order, grid and current stream."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.ops.cuda.device import SIMULATED

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(SIMULATED, reason="the simulator launches nothing")]


class OnGpu:
    """A tensor that says it is on the first GPU."""

    def __init__(self, real: torch.Tensor) -> None:
        self.real, self.dtype, self.device = real, real.dtype, torch.device("cuda", 0)

    def __getitem__(self, rows: slice) -> "OnGpu":
        return OnGpu(self.real[rows])

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.real.data_ptr()


def test_a_launch_passes_addresses_and_scalars_on_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.core

    from ops_cuda import _compilation
    from ops_cuda._numba import cuda as numba_cuda
    from ops_cuda._numba import kernel

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cuda.core, "launch", lambda *given: calls.append(given))
    loaded = SimpleNamespace(from_cubin=lambda cubin: SimpleNamespace(get_kernel=lambda name: (cubin[:4], name)))
    monkeypatch.setattr(cuda.core, "ObjectCode", loaded)
    compiled = _compilation.Compiled(b"\x7fELF", "entry")
    monkeypatch.setattr(_compilation, "cached_cubin", lambda kernel, dtype, capability: compiled)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda index: pytest.MonkeyPatch.context())
    handles = iter([0, 1234, 1234])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=next(handles)))
    monkeypatch.setattr(cuda.core, "Stream", SimpleNamespace(from_handle=lambda handle: f"stream {handle}"))

    @kernel("T* x, i64 count, R factor, f64 exact", (torch.bfloat16,), threads=128)
    def scale(x: Any, count: int, factor: Any, exact: Any) -> None:
        x[numba_cuda.grid(1)] = count

    from ops_cuda._numba import KERNELS

    KERNELS.remove(scale)
    x, elsewhere = OnGpu(torch.zeros(8, dtype=torch.bfloat16)), torch.zeros(8, dtype=torch.bfloat16)
    for _ in range(3):
        scale.launch(torch.bfloat16, torch.device("cuda", 0), 70_000, 128, x[2:], 2**40, 0.1, 0.1)
    scale.launch(torch.bfloat16, torch.device("cuda", 0), 0, 128, x, 0, 0.1, 0.1)
    wrong = (
        ((x, True, 0.1, 0.1), r"scale: count is True, of <class 'bool'>; declared an int"),
        ((x, 2.0, 0.1, 0.1), r"count is 2\.0"),
        ((elsewhere, 1, 0.1, 0.1), r"x is torch\.bfloat16 on cpu; declared torch\.bfloat16 on cuda:0"),
        ((OnGpu(elsewhere.float()), 1, 0.1, 0.1), r"x is torch\.float32"),
        ((x, 1, 0.1), "4 parameters, 3 arguments"),
    )
    for given, message in wrong:
        with pytest.raises(TypeError, match=message):
            scale.launch(torch.bfloat16, torch.device("cuda", 0), 1, 128, *given)
    assert len(calls) == 3, "no blocks, no launch"
    assert [call[0] for call in calls] == [cuda.core.LEGACY_DEFAULT_STREAM, "stream 1234", "stream 1234"]
    _, grid, entry, *values = calls[0]
    assert grid.grid == (70_000, 1, 1) and grid.block == (128, 1, 1) and entry == (b"\x7fELF", "entry")
    assert values == [x.data_ptr() + 4, 2**40, np.float32(0.1), np.float64(0.1)]
    assert [type(value) for value in values] == [int, int, np.float32, np.float64]
    with pytest.raises(TypeError, match=r"scale: no kernel for torch\.float64; convert to one of torch\.bfloat16"):
        scale.launch(torch.float64, torch.device("cuda", 0), 1, 128, x, 0, 0.1, 0.1)


def test_a_cubin_is_compiled_once_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from ops_cuda import _compilation
    from ops_cuda.kernels.nms import nms_gather

    monkeypatch.setattr(_compilation, "_cache_folder", lambda: tmp_path / "state")
    first = _compilation.cached_cubin(nms_gather, torch.float32, (9, 0))
    assert first.ptx and first.cubin[:4] == b"\x7fELF"
    monkeypatch.setattr(_compilation, "compile_kernel", lambda *_: pytest.fail("compiled again"))
    again = _compilation.cached_cubin(nms_gather, torch.float32, (9, 0))
    assert (again.cubin, again.entry) == (first.cubin, first.entry)
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["nms_gather.float32.sm_90.cubin"]


def test_a_place_that_cannot_be_written_costs_time_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from ops_cuda import _compilation
    from ops_cuda.kernels.nms import nms_gather

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(_compilation, "_cache_folder", lambda: tmp_path / "file" / "state")
    made = _compilation.Compiled(b"cubin", "entry")
    monkeypatch.setattr(_compilation, "compile_kernel", lambda *_: made)
    with pytest.warns(UserWarning, match="each process compiles them anew"):
        assert _compilation.cached_cubin(nms_gather, torch.float32, (9, 0)) is made
