"""Everything drawn at random has a named, documented range, and docs/world.md tells them as they are.

`PYTHONPATH=tests python tests/world/test_world_ranges.py` prints the table for the page.
"""

import ast
import importlib
import sys
from functools import cache

import pytest
from imports import ROOT, module_file, project_modules

WORLD = project_modules("mcpipe/world")
DRAWS = {"uniform", "normal", "integers", "choice", "random", "permutation", "standard_normal"}


def draws(node):
    """Whether a node of the syntax tree is a draw of random numbers."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr in DRAWS:
        return ast.unparse(node.func.value) == "rng"
    return any(isinstance(argument, ast.Name) and argument.id == "rng" for argument in node.args)


def settings_of(node):
    """The parts of the syntax tree that set what a node draws, if it draws anything."""
    if draws(node):
        return node.args
    if isinstance(node, ast.Compare) and any(map(draws, ast.walk(node))):
        return [node.left, *node.comparators]
    if isinstance(node, ast.DictComp | ast.ListComp) and any(map(draws, ast.walk(node))):
        return [generator.iter for generator in node.generators]
    return []


@cache
def tree_of(module):
    return ast.parse(module_file(module).read_text(encoding="utf-8"))


@cache
def used_constants(module):
    """Constants, as (module, name), that some draw in a module depends on."""
    settings = [
        part for node in ast.walk(tree_of(module)) for setting in settings_of(node) for part in ast.walk(setting)
    ]
    names = {part.id for part in settings if isinstance(part, ast.Name) and part.id.isupper()}
    imports = [node for node in tree_of(module).body if isinstance(node, ast.ImportFrom)]
    origin = {alias.name: node.module for node in imports for alias in node.names}
    ranges = {name for name in documented(module) if name.endswith(("_RANGE", "_RANGES", "_SHARE", "_TONES"))}
    return {(origin.get(name, module), name) for name in names | ranges}


@cache
def documented(module):
    """Docstrings of a module's own constants, by name."""
    body = tree_of(module).body
    docstrings = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id.isupper():
            has_docstring = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            docstrings[target.id] = " ".join(following.value.value.split()) if has_docstring else None
    return docstrings


def in_words(value):
    """A range in words."""
    if isinstance(value, dict):
        if all(isinstance(item, tuple) and len(item) == 3 and max(item) > 3 for item in value.values()):
            return ", ".join(value)  # colours and the like
        return "; ".join(
            f"{name} {in_words(item)}" if not isinstance(item, str) else name for name, item in value.items()
        )
    if isinstance(value, tuple) and all(isinstance(item, int | float) for item in value):
        return " to ".join(f"{item:g}" for item in value[:2]) + "".join(f" +- {item:g}" for item in value[2:])
    if isinstance(value, tuple):
        return ", ".join(item if isinstance(item, str) else f"({', '.join(f'{c:g}' for c in item)})" for item in value)
    return str(value) if isinstance(value, int) else f"{value:g}"


def table():
    """Rows of the page's table, by module."""
    used = set().union(*map(used_constants, WORLD))
    rows = {}
    for module in WORLD:
        loaded = importlib.import_module(module)
        for name, meaning in documented(module).items():
            if (module, name) in used:
                row = f"| `{name}` | {in_words(getattr(loaded, name))} | {meaning} |"
                rows.setdefault(module.removeprefix("mcpipe.world."), []).append(row)
    return rows


@pytest.mark.parametrize("module", WORLD)
def test_no_draw_hides_its_range(module):
    tree = tree_of(module)
    for node in ast.walk(tree):
        if not draws(node) or not isinstance(node.func, ast.Attribute) or node.func.attr not in DRAWS:
            continue
        numbers = [part for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Constant)]
        # A deviation drawn around 0 or 1 says in its scale how far it goes.
        hidden = [part.value for part in numbers if part.value not in (0.0, 1.0, 3)]
        assert not hidden, f"{module}:{node.lineno} draws from {hidden}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(draws, ast.walk(node))):
            assert not isinstance(node.comparators[0], ast.Constant), f"{module}:{node.lineno} compares with a number"


@pytest.mark.parametrize("module", WORLD)
def test_every_range_says_what_it_is(module):
    known = set().union(*map(used_constants, WORLD))
    silent = [name for name, meaning in documented(module).items() if (module, name) in known and not meaning]
    assert not silent, f"{module}: {silent} have no docstring"


def test_the_page_tells_the_ranges_as_they_are():
    """A new attribute may be missing from the page; what the page has must be true and, module by module, complete."""
    lines = (ROOT / "docs" / "world.md").read_text(encoding="utf-8").splitlines()
    rows = table()
    known = [row for module in rows.values() for row in module]
    documented_rows = [line for line in lines if line.startswith("| `") and line[3:].split("`")[0].isupper()]
    stale = [line for line in documented_rows if line not in known]
    assert not stale, f"renew the table with `PYTHONPATH=tests python tests/world/test_world_ranges.py`: {stale}"
    for module, of_module in rows.items():
        if not module.startswith("attributes.") or any(row in lines for row in of_module):
            assert [row for row in of_module if row not in lines] == [], module
    assert len(known) > 40


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for module, of_module in table().items():
        sys.stdout.write("\n".join([f"| **{module}** | | |", *of_module]) + "\n")
