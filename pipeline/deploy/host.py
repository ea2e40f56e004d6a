"""What this machine's CPU does with 8-bit products: the one fact about the host that the INT8 file may depend on."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni", "avx_vnni_int8"}
"""Flags of x86 CPUs that add four 8-bit products in 32 bits. Without, ONNX Runtime uses VPMADDUBSW, which adds two in 16 bits
and saturates: 255 x 127 x 2 is more than 32,767."""
X86 = ("x86_64", "amd64", "i686", "i386")


@dataclass(frozen=True, slots=True)
class ReducedRange:
    """Whether weights take 7 bits instead of 8, and who said so."""

    on: bool
    why: str


def reduced_range(setting: Literal["auto"] | bool, cpuinfo: Path = CPUINFO, machine: str = "") -> ReducedRange:
    """`quantize.reduce_range` resolved: "auto" asks this host's CPU (`machine` by default from the operating system)."""
    if setting != "auto":
        return ReducedRange(setting, f"quantize.reduce_range={str(setting).lower()}")
    machine = machine or platform.machine()
    if machine.lower() not in X86:
        return ReducedRange(False, f"auto: {machine} adds 8-bit products in 32 bits")
    found = VNNI & _flags(cpuinfo)
    if found:
        return ReducedRange(False, f"auto: this host's CPU has {', '.join(sorted(found))}")
    return ReducedRange(True, "auto: this host's x86 CPU has no VNNI, where sums of 8-bit products saturate")


def _flags(cpuinfo: Path) -> set[str]:
    """What the first processor can do; nothing when the kernel does not tell, which is the careful answer."""
    if not cpuinfo.is_file():
        return set()
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()
