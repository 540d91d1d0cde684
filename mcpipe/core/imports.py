"""Which modules a module imports, read from syntax trees: late imports count, and nothing is imported."""

import ast
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

DOTTED_NAME = re.compile(r"\w+(\.\w+)+")


def module_file(module: str) -> Path | None:
    """The Python file of a module or package; ``None`` if it does not exist or is not a Python file."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file).resolve() if file and file.endswith(".py") else None
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    if not rest and spec.origin:
        return Path(spec.origin).resolve()
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file.resolve()
    return None


def imported_modules(module: str, packages: Collection[str]) -> frozenset[str]:
    """Every module that the import statements of a module name, third-party ones included.

    A text that is the dotted name of a module of ``packages`` counts as an import of it.

    Raises:
        ValueError: the module has no Python file.
    """
    file = module_file(module)
    if file is None:
        raise ValueError(f"{module} has no Python file")
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return _imports_of(file, file.stat().st_mtime_ns, package, tuple(packages))


def closure(module: str, packages: Collection[str]) -> set[str]:
    """A module and all modules of ``packages`` that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen and module_file(current) is not None:
            seen.add(current)
            waiting += [name for name in imported_modules(current, packages) if name.split(".")[0] in packages]
    return seen


@cache
def _imports_of(file: Path, _changed_ns: int, package: str, packages: tuple[str, ...]) -> frozenset[str]:
    """The imports of a file as it is since a time; every stage asks for those of the same files again."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(name for node in ast.walk(tree) for name in _names(node, package, packages))


def _names(node: ast.AST, package: str, packages: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
        yield source
        yield from (name for alias in node.names if _is_module(name := f"{source}.{alias.name}", packages))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_module(node.value, packages):
        yield node.value


def _is_module(name: str, packages: Collection[str]) -> bool:
    return name.split(".")[0] in packages and bool(DOTTED_NAME.fullmatch(name)) and module_file(name) is not None
