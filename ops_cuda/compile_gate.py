"""Compile every kernel for every architecture and judge it, on any machine: `python -m ops_cuda.compile_gate [part of a name]`.

One row per kernel, dtype and architecture: registers, shared memory, stack, spills and float64 instructions. A row fails when
it spills, when a float32 kernel computes in float64 (a silent promotion, many times slower), or when a product of 32 bits
reaches an address (which breaks beyond 2**31 elements). A kernel may name a rule that does not hold for it, with the reason.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from ops_cuda import kernels
from ops_cuda._compilation import Compiled, compile_kernel

CAPABILITIES = ((8, 0), (9, 0), (10, 0))


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one kernel for one dtype and architecture. Sizes in bytes."""

    kernel: str
    dtype: str
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int
    float64: int
    narrow: int
    faults: tuple[str, ...]
    excused: tuple[str, ...]


def _first(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def narrow_addresses(ptx: str) -> int:
    """Global loads, stores and atomics whose address depends on a product or shift of 32 bits that is then widened.

    Registers are followed forwards from such products, through everything but memory and floating point, whose results are data.
    An exact 32 x 32 -> 64 product is none of them.
    """
    narrow, addresses = set[str](), list[str]()
    flows: list[tuple[str, list[str]]] = []
    quotients = set[tuple[str, ...]]()  # times their divisor they are no larger than what was divided
    for line in ptx.splitlines():
        op, _, operands = re.sub(r"^@!?%p\d+\s+", "", line.strip()).partition(" ")
        if re.match(r"(ld|st|atom|red)\.(\w+\.)*global", op):
            addresses += re.findall(r"\[(%rd\d+)", operands)
        elif not op.startswith(("ld.", "st.", "atom.", "red.", "setp", "bra")):
            given = [operand.strip() for operand in operands.rstrip(";").split(",")]
            if not re.search(r"\.f(16|32|64)", op) and given[0].startswith("%r"):
                flows.append((given[0], re.findall(r"%rd?\d+", ",".join(given[1:]))))
            if op == "div.u32":
                quotients.add((given[0], given[2]))
            elif re.match(r"(mul\.lo|mad\.lo|shl)\.[sub]32", op) and tuple(given[1:]) not in quotients:
                narrow.add(given[0])
    grown = True
    while grown:
        before = len(narrow)
        narrow.update(target for target, sources in flows if not narrow.isdisjoint(sources))
        grown = len(narrow) > before
    return sum(address in narrow for address in addresses)


def judge(name: str, dtype: torch.dtype, capability: tuple[int, int], compiled: Compiled, exempt: dict[str, str]) -> Row:
    """The row of a compiled kernel."""
    log = compiled.log
    spills = _first(r"(\d+) bytes spill stores", log) + _first(r"(\d+) bytes spill loads", log)
    float64 = len(re.findall(r"\.f64", compiled.ptx))
    narrow = narrow_addresses(compiled.ptx)
    found = {"spills": spills, "f64": float64, "narrow": narrow}
    faults = tuple(rule for rule, count in found.items() if count and rule not in exempt)
    return Row(
        name,
        str(dtype).removeprefix("torch."),
        f"sm_{capability[0]}{capability[1]}",
        _first(r"Used (\d+) registers", log),
        sum(map(int, re.findall(r"\.shared .*\[(\d+)\];", compiled.ptx))),
        _first(r"(\d+) bytes stack frame", log),
        spills,
        float64,
        narrow,
        faults,
        tuple(f"{rule}: {exempt[rule]}" for rule, count in found.items() if count and rule in exempt),
    )


def _rows(number: int) -> list[Row]:
    from ops_cuda._numba import KERNELS

    load_kernels()
    kernel = KERNELS[number]
    rows = []
    for dtype in kernel.bodies:
        exempt = {"f64": "the float64 form"} if dtype is torch.float64 else {}
        for rule, reason in kernel.exempt.items():
            *only, name = rule.split()
            if only in ([], [str(dtype).removeprefix("torch.")]):
                exempt[name] = reason
        for capability in CAPABILITIES:
            rows.append(judge(kernel.name, dtype, capability, compile_kernel(kernel, dtype, capability), exempt))
    return rows


def load_kernels() -> None:
    """Import every module of kernels, so that all are declared."""
    for module in pkgutil.iter_modules(kernels.__path__, "ops_cuda.kernels."):
        importlib.import_module(module.name)


def rows(processes: int, part: str = "", share: tuple[int, int] = (0, 1)) -> Iterator[Row]:
    """The rows of every kernel with `part` in its name, compiled by so many processes; of these the `share` (n, of how many)."""
    from ops_cuda._numba import KERNELS

    load_kernels()
    numbers = [number for number, kernel in enumerate(KERNELS) if part in kernel.name][share[0] :: share[1]]
    if processes == 1:
        for number in numbers:
            yield from _rows(number)
        return
    with ProcessPoolExecutor(processes, get_context("fork")) as pool:  # the children have everything imported
        for own in pool.map(_rows, numbers):
            yield from own


def table(found: list[Row]) -> str:
    """The rows as text, one line each."""
    lines = [
        f"{'kernel':24} {'dtype':9} {'arch':7} {'regs':>4} {'shared':>6} {'stack':>5} {'spills':>6} {'.f64':>4} {'narrow':>6}"
    ]
    for row in found:
        verdict = " ".join((*(f"FAULT: {fault}" for fault in row.faults), *row.excused))
        lines.append(
            f"{row.kernel:24} {row.dtype:9} {row.arch:7} {row.registers:6} {row.shared:6} {row.stack:6} "
            f"{row.spills:6} {row.float64:6} {row.narrow:6} {verdict}".rstrip()
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table, of kernels named like the argument if there is one; 1 when a row fails."""
    found = list(rows(processes=2, part="".join(sys.argv[1:2])))
    print(table(found))
    faults = sum(bool(row.faults) for row in found)
    print(f"{len(found)} rows, {faults} with faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
