"""What kernels are written with, as the CUDA simulator runs it: an index outside a tensor raises, roundings are the device's.

The same names as `_device_functions`, which the device's kernels get; both come to kernels through `_numba`.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ATOMIC = threading.Lock()


class SimulatedPointer:
    """A tensor's storage from its first element on, flat; bfloat16, unknown to numpy, as 16-bit integers."""

    def __init__(self, tensor: Tensor) -> None:
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        flat = torch.as_strided(tensor.detach(), (reach if tensor.numel() else 0,), (1,))
        self.is_bfloat16 = tensor.dtype is torch.bfloat16
        self.values: np.ndarray = (flat.view(torch.uint16) if self.is_bfloat16 else flat).numpy()

    def _checked(self, index: Any) -> int:
        if not isinstance(index, (int, np.integer)):
            raise TypeError(f"index {index!r} is no integer")
        if not 0 <= index < len(self.values):
            raise IndexError(f"index {index} of a tensor of {len(self.values)} elements")
        return int(index)

    def __getitem__(self, index: Any) -> Any:
        return self.values[self._checked(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[self._checked(index)] = value

    def load(self, index: Any) -> Any:
        """The element as float32, or float64 of a float64 tensor."""
        value = self[index]
        if self.is_bfloat16:
            return np.uint32(int(value) << 16).view(np.float32)
        return np.float32(value) if value.dtype == np.float16 else value

    def store(self, index: Any, value: Any) -> None:
        """Write an element, rounded to nearest, ties to even."""
        if self.is_bfloat16:
            self[index] = torch.tensor(float(value), dtype=torch.float32).to(torch.bfloat16).view(torch.uint16).item()
        else:
            self[index] = value


def load(pointer: SimulatedPointer, index: int) -> Any:
    """The element in arithmetic precision."""
    return pointer.load(index)


def store(pointer: SimulatedPointer, index: int, value: Any) -> None:
    """Write an element, rounded to the pointer's type."""
    pointer.store(index, value)


def product(a: Any, b: Any) -> Any:
    """a * b in float32 or float64, rounded: never fused with the addition that follows, so that the result is the CPU's."""
    return a * b


def float_bits(value: Any) -> Any:
    """The bits of a float32 as int32: in the order of the values, for values that are not negative."""
    return np.float32(value).view(np.int32)


def bits_float(bits: Any) -> Any:
    """The float32 of these int32 bits."""
    return np.int32(bits).view(np.float32)


def sinpi(x: Any) -> Any:
    """sin(pi x) of a float32: an angle in half turns, exact where the sine is 0, 1 or -1."""
    return np.float32(_turned(x).imag)


def cospi(x: Any) -> Any:
    """cos(pi x) of a float32."""
    return np.float32(_turned(x).real)


def _turned(x: Any) -> complex:
    """The point of the unit circle at x half turns; quarter turns are exact."""
    quarters = round(2 * float(x))
    angle = np.pi * (float(x) - quarters / 2)
    return complex(np.cos(angle), np.sin(angle)) * (1, 1j, -1, -1j)[quarters % 4]


def _atomic(combine: Callable[[Any, Any], Any]) -> Callable[[Any, int, Any], Any]:
    def atomic(target: Any, index: int, value: Any) -> Any:
        with _ATOMIC:
            old = target[index]
            target[index] = combine(old, value)
        return old

    return atomic


atomic_add = _atomic(lambda old, value: old + value)
"""Add to an element of a pointer or a shared array; what was there before."""

atomic_max = _atomic(max)
"""Replace an integer element by a larger one; what was there before."""
