"""Which files of this project a file imports, read from its source: what import-linter and dvc.yaml are checked with."""

import ast
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """Project files that `path` imports itself, also inside functions; imports for type checking alone do not count."""
    found: set[Path] = set()
    for node in _running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found.update(file for name in names if (file := _file_of(name)) is not None)
    return frozenset(found - {path})


def closure(path: Path, stop: frozenset[Path] = frozenset()) -> set[Path]:
    """All project files that running `path` may import, `path` itself included, not looking into those in `stop`."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen and current not in stop:
            seen.add(current)
            waiting.extend(imported_files(current))
    return seen


def _running(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    nodes: list[ast.AST] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        nodes.append(node)
        waiting.extend(ast.iter_child_nodes(node))
    return nodes


def _file_of(name: str) -> Path | None:
    place = CHECKOUT / name.replace(".", "/")
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file() and name.split(".")[0] in ("pipeline", "ops_cuda", "flows"):
            return file
    return None
