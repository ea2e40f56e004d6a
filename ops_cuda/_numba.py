"""Numba CUDA: how kernels are declared, compiled and launched. Nothing else imports `numba.cuda` or knows streams and pointers.

What: a kernel is a Python function over raw pointers and scalars, declared with one line such as
`"T* logits, f32* loss, i64 count, R gamma"`: T is the tensor's dtype, R its arithmetic (float32, or float64 for float64). It
becomes a cubin for the device's architecture once, is kept beside the sources, and is launched by `cuda.core` on torch's current
stream: no array interface (slow, synchronises, knows no bfloat16), nothing waits.
Half types are read and written through `load` and `store` and computed in float32; a bfloat16 pointer is one of 16-bit integers.
Index arithmetic is 64 bits wide: numba's integers are, unless one is cut by a cast. Grids have one axis, so 2**31 blocks fit.
In the simulator (`NUMBA_ENABLE_CUDASIM=1`) the same launches run on CPU tensors, and an index outside its tensor raises.
"""

import functools
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._simulated import SimulatedPointer

cuda: Any = importlib.import_module("numba.cuda")  # untyped
SIMULATED = bool(getattr(numba.config, "ENABLE_CUDASIM"))  # noqa: B009  untyped

THREADS = 16 if SIMULATED else 256
"""Threads of a block of an elementwise kernel. The simulator starts a system thread for each."""

HALF_TYPES = (torch.float32, torch.float16, torch.bfloat16)
ALL_TYPES = (*HALF_TYPES, torch.float64)

Body = Callable[..., None]

KERNELS: "list[Kernel]" = []
"""Every kernel declared so far, for the compile gate."""


class Kernel:
    """One kernel with a body per dtype; `threads` is the most a block has.

    `exempt` names rules of the compile gate that do not hold, with the reason: `"f64"`, or `"float64 narrow"` for one dtype only.
    """

    def __init__(
        self,
        name: str,
        parameters: str,
        bodies: Mapping[torch.dtype, Body],
        threads: int = THREADS,
        exempt: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.bodies, self.threads, self.exempt = name, bodies, threads, exempt or {}
        if any(name == other.name for other in KERNELS):
            raise ValueError(f"two kernels are called {name}; compiled kernels are kept by name, so give one of them another")
        self.parameters = [tuple(parameter.split()) for parameter in parameters.split(",")]
        self._launchers: dict[tuple[torch.dtype, int], Callable[..., None]] = {}
        KERNELS.append(self)

    def kinds(self, dtype: torch.dtype) -> list[str]:
        """The parameters' types for a dtype, such as `f16*`, with T and R replaced."""
        real = "f64" if dtype is torch.float64 else "f32"
        return [kind.replace("T", _SHORT[dtype]).replace("R", real) for kind, _ in self.parameters]

    def launch(self, dtype: torch.dtype, device: torch.device, blocks: int, threads: int, *arguments: Any) -> None:
        """Run `blocks` blocks of `threads` threads on the current stream; tensors are passed by address, in declared order.

        TypeError for a tensor of another dtype or device than declared, and for an integer that is none: the driver is handed one
        byte for a bool. The caller vouches for shapes and contiguity. Nothing happens for 0 blocks.
        """
        if blocks == 0:
            return
        key = (dtype, device.index or 0)
        launcher = self._launchers.get(key)
        if launcher is None:
            if dtype not in self.bodies:
                known = ", ".join(str(known) for known in self.bodies)
                raise TypeError(f"{self.name}: no kernel for {dtype}; convert to one of {known}")
            launcher = self._launchers[key] = (_simulator if SIMULATED else _launcher)(self, dtype, device)
        launcher(blocks, threads, arguments)


def kernel(
    parameters: str,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    threads: int = THREADS,
    exempt: Mapping[str, str] | None = None,
) -> Callable[[Body], Kernel]:
    """Declare the function below as a kernel that computes in float32, for each of `dtypes`."""
    return lambda body: Kernel(body.__name__, parameters, dict.fromkeys(dtypes, body), threads, exempt)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What a kernel computes in, R, where its tensors are of `dtype`."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def whole(tensor: Tensor) -> Tensor:
    """Indices, sizes or starts of any integer type as kernels read them: int64, one behind the other."""
    return tensor.to(torch.int64).contiguous()


def warn_not_deterministic(op: str) -> None:
    """As torch does: an error or a warning where deterministic algorithms were asked for."""
    if torch.are_deterministic_algorithms_enabled():
        message = f"{op} adds gradients atomically on CUDA: not deterministic; torch.use_deterministic_algorithms(warn_only=True)"
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=2)


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Blocks of `threads` threads that give `count` elements a thread each."""
    return -(-count // threads)


_SHORT = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64"}
_HOST = {"f32": np.float32, "f64": np.float64}
_POINTED = {
    "f16": (torch.float16,),
    "bf16": (torch.bfloat16,),
    "f32": (torch.float32,),
    "f64": (torch.float64,),
    "i64": (torch.int64,),
    "u64": (torch.uint64,),
    "i32": (torch.int32,),
    "i8": (torch.int8,),
    "u8": (torch.uint8, torch.bool),
}
"""dtypes of the tensors that a pointer may stand for: of another, the device would misread the bytes."""


# -- what kernels are written with: the same names on the device and in the simulator, where they are documented --

_language: Any = importlib.import_module("ops_cuda._simulated" if SIMULATED else "ops_cuda._device_functions")
atomic_add, atomic_max = _language.atomic_add, _language.atomic_max
bits_float, float_bits = _language.bits_float, _language.float_bits
load, store = _language.load, _language.store
product = _language.product
sinpi, cospi = _language.sinpi, _language.cospi
device: Callable[[Callable[..., Any]], Any] = (lambda body: body) if SIMULATED else cuda.jit(device=True)
"""Declares a function that kernels call. One that uses `cuda` lives in its kernel's module, for the simulator's sake."""


def _checker(kernel: Kernel, dtype: torch.dtype, device: int) -> Callable[[Sequence[Any]], None]:
    """Refuses what the kernel would misread; `device` is a GPU's number, -1 the CPU."""
    declared = list(enumerate(zip(kernel.parameters, kernel.kinds(dtype), strict=True)))
    pointers = [(place, name, _POINTED[kind[:-1]]) for place, ((_, name), kind) in declared if kind.endswith("*")]
    integers = [(place, name) for place, ((_, name), kind) in declared if not kind.endswith("*") and kind not in _HOST]

    def check(arguments: Sequence[Any]) -> None:
        if len(arguments) != len(declared):
            raise TypeError(f"{kernel.name}: {len(declared)} parameters, {len(arguments)} arguments")
        for place, name, dtypes in pointers:
            tensor = arguments[place]
            if tensor.dtype not in dtypes or tensor.get_device() != device:
                where = f"cuda:{device}" if device >= 0 else "cpu"
                raise TypeError(f"{kernel.name}: {name} is {tensor.dtype} on {tensor.device}; declared {dtypes[0]} on {where}")
        for place, name in integers:
            if type(arguments[place]) is not int:
                raise TypeError(f"{kernel.name}: {name} is {arguments[place]!r}, of {type(arguments[place])}; declared an int")

    return check


# -- the simulator --

_ONE_KERNEL = threading.Lock()


def _simulator(kernel: Kernel, dtype: torch.dtype, _: torch.device) -> Callable[..., None]:
    kinds, body, check = kernel.kinds(dtype), cuda.jit(kernel.bodies[dtype]), _checker(kernel, dtype, -1)

    def run(blocks: int, threads: int, arguments: Sequence[Any]) -> None:
        check(arguments)
        given = [
            SimulatedPointer(argument) if kind.endswith("*") else _HOST.get(kind, np.int64)(argument)
            for kind, argument in zip(kinds, arguments, strict=True)
        ]
        with _ONE_KERNEL, np.errstate(all="ignore"):
            body[blocks, threads](*given)

    return run


# -- the device --


def _launcher(kernel: Kernel, dtype: torch.dtype, device: torch.device) -> Callable[..., None]:
    """A launch that costs a dictionary look-up, the conversion of arguments and one call into the driver."""
    from cuda.core import LEGACY_DEFAULT_STREAM, LaunchConfig, ObjectCode, Stream, launch

    from ops_cuda._compilation import cached_cubin

    index = device.index or 0
    compiled = cached_cubin(kernel, dtype, torch.cuda.get_device_capability(index))
    with torch.cuda.device(index):
        entry = ObjectCode.from_cubin(compiled.cubin).get_kernel(compiled.entry)
    kinds, check = kernel.kinds(dtype), _checker(kernel, dtype, index)
    addresses = [place for place, kind in enumerate(kinds) if kind.endswith("*")]
    # numpy makes a scalar in 0.7 us, the cache finds one in a tenth of that; cuda.core passes Python integers as 8 bytes
    floats = [(place, functools.lru_cache(256)(_HOST[kind])) for place, kind in enumerate(kinds) if kind in _HOST]
    streams: dict[int, Any] = {0: LEGACY_DEFAULT_STREAM}
    grids: dict[tuple[int, int], Any] = {}

    def run(blocks: int, threads: int, arguments: Sequence[Any]) -> None:
        check(arguments)
        handle = torch.cuda.current_stream(index).cuda_stream
        stream = streams.get(handle)
        if stream is None:
            stream = streams[handle] = Stream.from_handle(handle)
        grid = grids.get((blocks, threads))
        if grid is None:
            if len(grids) == 256:  # shapes that never repeat would fill the memory
                grids.clear()
            grid = grids[blocks, threads] = LaunchConfig(grid=blocks, block=threads)
        values = list(arguments)
        for place in addresses:
            values[place] = values[place].data_ptr()
        for place, convert in floats:
            values[place] = convert(values[place])
        if torch.cuda.current_device() == index:
            launch(stream, grid, entry, *values)
        else:
            with torch.cuda.device(index):
                launch(stream, grid, entry, *values)

    return run


_COMPILING = threading.Lock()
"""A backward pass compiles in another thread than its forward."""


@contextmanager
def compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """Device functions ask for the current device's architecture: while a kernel is compiled it is the one compiled for."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    with _COMPILING:
        real = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            dispatcher.get_current_device = real
