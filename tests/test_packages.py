"""Declared packages are those that the code imports, no more and no less."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from imports import PACKAGES, ROOT, project_modules

NOT_IMPORTED = {
    "basedpyright": "command",
    "beartype": "pytest's option --jaxtyping-packages names it",
    "pytest-timeout": "plugin of pytest",
    "pytest-xdist": "plugin of pytest",
    "ruff": "command",
    "dvc-s3": "plugin of dvc",
    "dvc-ssh": "plugin of dvc",
    "dvc-webdav": "plugin of dvc",
    "cheroot": "server that tests/dvc/test_remotes.py imports by name, if installed",
    "moto": "server that tests/dvc/test_remotes.py imports by name, if installed",
    "wsgidav": "server that tests/dvc/test_remotes.py imports by name, if installed",
}
"""Declared packages that no import statement names, and what needs them."""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """Normal names of the packages that pyproject.toml declares, without and with its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        extra: {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in some} - {"mcpipe"}
        for extra, some in lines.items()
    }
    return names[""], set().union(*names.values()), names


def imported(*folders):
    """Distributions that may provide each vendor's module which the folders import, and a file that does."""
    own = {*PACKAGES, "tests", *(file.stem for file in (ROOT / "tests").rglob("*.py"))}
    own |= {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    providers, vendors = packages_distributions(), {}
    for module in project_modules(*folders):
        file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        file = file if file.is_file() else file.with_suffix("") / "__init__.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                vendors[name] = {normal(provider) for provider in providers.get(name, [name])}, file
    return vendors


def test_every_import_is_declared_and_every_declared_package_is_imported():
    required, every, extras = declared()
    code, tests = imported(*PACKAGES), imported("tests")
    allowed = required | extras["ray"] | extras["demo"] | extras["lowmem"]
    assert {name: file for name, (providers, file) in code.items() if not providers & allowed} == {}
    assert {name: file for name, (providers, file) in tests.items() if not providers & every} == {}
    used = set().union(*(providers for providers, _ in (*code.values(), *tests.values())))
    assert every - used - NOT_IMPORTED.keys() == set(), "declared, imported nowhere"
    assert required <= set().union(*(providers for providers, _ in code.values())) | NOT_IMPORTED.keys(), "tests alone"
    assert NOT_IMPORTED.keys() <= every - used, "no exceptions any more"
