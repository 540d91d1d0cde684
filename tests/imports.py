"""The modules of this project and what they import."""

import ast
from functools import cache
from pathlib import Path

from mcpipe.core import imports
from mcpipe.core.imports import module_file

__all__ = ["ROOT", "closure", "imported_modules", "module_file", "project_modules", "syntax_tree"]
PACKAGES = ("mcpipe", "stages", "zoo", "studies", "benchmarks", "focusdpo", "objects", "psr")
ROOT = Path(__file__).resolve().parent.parent


@cache
def syntax_tree(file: Path) -> ast.Module:
    """A file parsed, once for all tests that look at it; nobody changes the tree."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Every module that is named in an import statement anywhere in the module, vendors' included."""
    return imports.imported_modules(module, PACKAGES)


@cache
def closure(module: str) -> frozenset[str]:
    """All modules of this project that a module needs, itself included."""
    return frozenset(imports.closure(module, PACKAGES))


def project_modules(*packages: str) -> list[str]:
    """All modules of some of the project's packages."""
    files = [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]
