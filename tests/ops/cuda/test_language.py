"""What kernels are written with: half types, atomics, exact products, angles, in the simulator and on a device alike."""

import math
from typing import Any

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, SIMULATED, moved

if not SIMULATED and not torch.cuda.is_available():  # before numba.cuda is imported: it takes a second
    pytest.skip("neither the simulator nor a GPU here", allow_module_level=True)

from ops_cuda._numba import (
    KERNELS,
    THREADS,
    atomic_add,
    atomic_max,
    bits_float,
    blocks_for,
    cospi,
    cuda,
    float_bits,
    kernel,
    load,
    product,
    sinpi,
    store,
)

pytestmark = ON_DEVICE


@kernel("f32* x, T* y, f32* back, i64 count", (torch.float16, torch.bfloat16))
def round_trip(x: Any, y: Any, back: Any, count: int) -> None:
    i = cuda.grid(1)
    if i < count:
        store(y, i, x[i])
        back[i] = load(y, i)


@kernel("f32* x, f32* total, i32* most, i64* counted, i64 count")
def reduced(x: Any, total: Any, most: Any, counted: Any, count: int) -> None:
    i = cuda.grid(1)
    if i < count:
        atomic_add(total, 0, x[i])
        atomic_max(most, 0, float_bits(x[i]))
        atomic_add(counted, 0, 2**33)


@kernel("f32* x, f32* y, i64 count")
def exact(x: Any, y: Any, count: int) -> None:
    i = cuda.grid(1)
    if i < count:
        y[4 * i] = product(x[i], x[i]) - x[i]
        y[4 * i + 1], y[4 * i + 2] = sinpi(x[i]), cospi(x[i])
        y[4 * i + 3] = bits_float(float_bits(x[i]))


for declared in (round_trip, reduced, exact):
    KERNELS.remove(declared)  # not the gate's business


def launched(which: Any, dtype: torch.dtype, count: int, *arguments: Any) -> list[Any]:
    there = list(arguments) if SIMULATED else moved(list(arguments), "cuda")
    which.launch(dtype, there[0].device, blocks_for(count), THREADS, *there, count)
    return moved(there, "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_round_to_nearest_even(dtype: torch.dtype) -> None:
    odd = [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65520, 3.4e38, 1e-7, 6e-8, 1e-40, -2.5]
    x = torch.tensor([*odd, math.inf, -math.inf, math.nan])
    _, y, back = launched(round_trip, dtype, len(x), x, torch.zeros(len(x), dtype=dtype), torch.zeros(len(x)))
    assert torch.equal(y[:-1].view(torch.int16), x.to(dtype)[:-1].view(torch.int16)) and bool(y[-1].isnan())
    torch.testing.assert_close(back, x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_atomics() -> None:
    x = torch.arange(100.0) / 4
    given = (x, torch.zeros(1), torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int64))
    _, total, most, counted = launched(reduced, torch.float32, 100, *given)
    assert float(total) == float(x.sum()) and int(counted) == 100 * 2**33
    assert most.view(torch.float32).item() == 24.75


def test_products_are_rounded_and_angles_exact() -> None:
    x = torch.cat([torch.arange(-8, 9) / 2, torch.rand(20, generator=torch.Generator().manual_seed(0)) * 50 - 25])
    _, y = launched(exact, torch.float32, len(x), x, torch.zeros(len(x), 4))
    assert torch.equal(y[:, 0], x * x - x), "a fused product would differ in the last bits"
    angle = torch.remainder(x.double(), 2) * math.pi
    torch.testing.assert_close(y[:, 1:3].double(), torch.stack([angle.sin(), angle.cos()], 1), rtol=0, atol=3e-7)
    assert torch.equal(y[:17, 1:3], y[:17, 1:3].round()), "right angles"
    assert torch.equal(y[:, 3], x)


@pytest.mark.skipif(not SIMULATED, reason="the device does not look")
def test_the_simulator_finds_what_a_device_would_misread() -> None:
    x = torch.zeros(4)
    with pytest.raises(IndexError, match="index 4 of a tensor of 4 elements"):
        launched(round_trip, torch.float16, 5, torch.zeros(5), torch.zeros(4, dtype=torch.float16), torch.zeros(5))
    with pytest.raises(TypeError, match=r"round_trip: y is torch\.float32 on cpu; declared torch\.float16"):
        launched(round_trip, torch.float16, 4, x, x, x)
