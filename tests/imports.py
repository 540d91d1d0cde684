"""What a module imports, read from its syntax tree and therefore also where imports are late."""

import ast
import re
from functools import cache
from pathlib import Path

NAME = re.compile(r"(mcpipe|stages|zoo|studies|benchmarks)(\.\w+)+")
ROOT = Path(__file__).resolve().parent.parent


def module_file(module: str) -> Path | None:
    """The file of a module of this project, or None for other packages."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def is_module(text: str) -> bool:
    """Whether a text is the dotted name of a module of this project."""
    return bool(NAME.fullmatch(text)) and module_file(text) is not None


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Every module that is named in an import statement anywhere in the module, vendors' included."""
    file = module_file(module)
    assert file is not None, module
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            names.add(node.module)
            names |= {f"{node.module}.{a.name}" for a in node.names if module_file(f"{node.module}.{a.name}")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_module(node.value):
            names.add(node.value)  # a module may be imported by its name as text
    return frozenset(names)


def closure(module: str) -> set[str]:
    """All modules of this project that a module needs, itself included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        waiting += [name for name in imported_modules(current) if module_file(name)]
    return seen


def project_modules(*packages: str) -> list[str]:
    """All modules of some of the project's packages."""
    files = [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]
