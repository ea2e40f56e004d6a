"""The README's table of operators, from their sources and registrations: `python -m tests.operators` writes it."""

import ast
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- operators: written by python -m tests.operators -->", "<!-- operators: end -->"
TWINS = {
    "torchvision": r"torch\.ops\.torchvision|from torchvision",
    "numba": r"numba\.njit|^from ops_cuda\.rasterise_polygons import",
    "numpy": r"^import numpy",
}
"""What computes on the CPU, by what its source holds."""
COLUMNS = ("Operator", "What", "CPU", "CUDA", "Tests")


def table() -> str:
    """One row per file of ops_cuda that offers public functions."""
    offered = ast.literal_eval(re.search(r"__all__ = (\[.*?\])", source("ops_cuda/__init__.py"), re.DOTALL)[1])  # type: ignore[index]
    rows = []
    for path in sorted((ROOT / "ops_cuda").glob("[a-z]*.py")):
        text = path.read_text()
        functions = [name for name in re.findall(r"^def (\w+)\(", text, re.MULTILINE) if name in offered]
        if functions and "LIBRARY.define" in text:
            what = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].rstrip(".")
            twin = next((name for name, mark in TWINS.items() if re.search(mark, text, re.MULTILINE)), "torch")
            rows.append(
                (", ".join(f"`{name}`" for name in functions), what, twin, cuda(path.stem, text), tests_of(functions, text))
            )
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def source(name: str) -> str:
    return (ROOT / name).read_text()


def cuda(stem: str, text: str) -> str:
    """Which dtypes its kernels take, or what serves CUDA tensors instead."""
    modules = set(re.findall(r'on_cuda\("\w+", "(\w+)"', text))
    if modules:
        from ops_cuda._numba import Kernel

        members = [
            member for module in modules for member in vars(importlib.import_module(f"ops_cuda.kernels.{module}")).values()
        ]
        kernels = [member for member in members if isinstance(member, Kernel)]
        taken = {str(dtype).removeprefix("torch.") for kernel in kernels for dtype in kernel.bodies}
        return ", ".join(name for name in ("float32", "float16", "bfloat16", "float64") if name in taken)
    if '"CUDA")' in text:
        return "through the host" if ".cpu()" in text else "tensor expression"
    return "tensor expression" if "Composite" in text else "none"


def tests_of(functions: list[str], text: str) -> str:
    """Files that call the operator by its public name, or by its registered one."""
    registered = re.findall(r'LIBRARY.define\(\s*"(\w+)\(', text)
    call = re.compile("|".join([*(rf"\b{name}\(" for name in functions), *(rf'run\("{name}"' for name in registered)]))
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "ops_cuda" in path.read_text() or "cuda" in path.parts)
    found = [path.relative_to(ROOT / "tests") for path in files if path.parent.name in ("ops", "cuda", "parity")]
    return ", ".join(
        f"[{path.with_suffix('')}](tests/{path})" for path in found if call.search((ROOT / "tests" / path).read_text())
    )


def with_table(readme: str) -> str:
    """The README with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Write the table into the README."""
    README.write_text(with_table(README.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
