"""From a kernel to a cubin, for any architecture and without a GPU, with what the compiler said about it.

Compiled kernels are kept in `ops_cuda/__pycache__/cubin`, one folder per digest of these sources and of the compilers' versions:
a changed source never meets an old cubin. Files are replaced atomically, so processes may compile side by side.
"""

import functools
import hashlib
import importlib
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ops_cuda._numba import Kernel

SOURCES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel's machine code and the name of its entry; PTX and the assembler's notes are empty when it came from the cache."""

    cubin: bytes
    entry: str
    ptx: str = ""
    log: str = ""


def _numba_type(types: Any, kind: str) -> Any:
    scalar = {
        "f16": types.float16,
        "bf16": types.uint16,
        "f32": types.float32,
        "f64": types.float64,
        "i64": types.int64,
        "u64": types.uint64,
        "i32": types.int32,
        "i8": types.int8,
        "u8": types.uint8,
    }[kind.rstrip("*")]
    return types.CPointer(scalar) if kind.endswith("*") else scalar


def compile_kernel(kernel: "Kernel", dtype: torch.dtype, capability: tuple[int, int]) -> Compiled:
    """Compile for `sm_<capability>`. nvJitLink assembles: the machine's own ptxas may be too old for the PTX."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    from ops_cuda._numba import compiling_for

    types: Any = importlib.import_module("numba.cuda.types")  # numba's modules are not typed
    to_ptx: Any = importlib.import_module("numba.cuda.compiler").compile
    signature = types.void(*[_numba_type(types, kind) for kind in kernel.kinds(dtype)])
    with compiling_for(capability):
        ptx, _ = to_ptx(
            kernel.bodies[dtype],
            signature,
            device=False,
            abi="numba",
            cc=capability,
            output="ptx",
            launch_bounds=kernel.threads,
        )
    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    cubin = linker.link("cubin").code
    return Compiled(cubin, re.findall(r"\.entry (\w+)", ptx)[0], ptx, linker.get_info_log())


@functools.cache
def _cache_folder() -> Path:
    """The folder of this state of the sources."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink"):
        digest.update(f"{package} {version(package)}\n".encode())
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return SOURCES / "__pycache__" / "cubin" / digest.hexdigest()[:16]


def cached_cubin(kernel: "Kernel", dtype: torch.dtype, capability: tuple[int, int]) -> Compiled:
    """The kernel's cubin for this architecture, compiled once per state of the sources.

    Where the checkout cannot be written the kernel is compiled in every process.
    """
    name = f"{kernel.name}.{str(dtype).removeprefix('torch.')}.sm_{capability[0]}{capability[1]}"
    file = _cache_folder() / f"{name}.cubin"
    if file.exists():
        entry, _, cubin = file.read_bytes().partition(b"\n")
        return Compiled(cubin, entry.decode())
    compiled = compile_kernel(kernel, dtype, capability)
    try:
        _keep(file, compiled.entry.encode() + b"\n" + compiled.cubin)
    except OSError as error:  # installed read-only, or a full disk: the result is right all the same
        warnings.warn(f"{file.parent} cannot hold compiled kernels ({error}); each process compiles them anew", stacklevel=2)
    return compiled


def _keep(file: Path, content: bytes) -> None:
    """Write a file at once: other processes may compile the same kernel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.replace(beside, file)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
