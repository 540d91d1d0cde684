"""What a module imports, and the line in which errors are reported."""

import sys

from imports import ROOT, closure

from mcpipe.core.errors import one_line
from mcpipe.core.imports import closure as closure_of
from mcpipe.core.imports import imported_modules, module_file

FILES = {
    "__init__.py": "",
    "top.py": "import json\nfrom fresh_package import late\ndef f():\n    from .deep import name\n",
    "late.py": "MODULE = 'fresh_package.named'\nTEXT = 'fresh_package.absent'\n",
    "named.py": "import numpy.linalg\n",
    "deep/__init__.py": "name = 1\n",
    "alone.py": "",
}


def test_late_relative_and_named_imports_are_followed_and_nothing_is_imported(tmp_path, monkeypatch):
    for name, text in FILES.items():
        file = tmp_path / "fresh_package" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    closure = closure_of("fresh_package.top", ["fresh_package"])
    modules = {"fresh_package.top", "fresh_package.late", "fresh_package.named", "fresh_package.deep", "fresh_package"}
    assert closure == modules
    assert imported_modules("fresh_package.named", ["fresh_package"]) == {"numpy.linalg"}
    assert not any(name.startswith("fresh_package") for name in sys.modules)
    assert module_file("fresh_package.deep") == tmp_path / "fresh_package" / "deep" / "__init__.py"
    assert [module_file(name) for name in ("fresh_package.absent", "no_such_package.x", "math")] == [None] * 3


def test_the_closure_of_a_stage_holds_what_it_runs():
    modules = closure("stages.s11_generate")
    assert {"mcpipe.steps.generate", "mcpipe.core.errors", "mcpipe.flux.sampler"} <= modules
    assert not any(module.startswith(("mcpipe.report", "mcpipe.cli", "studies")) for module in modules)
    assert module_file("stages.s11_generate") == ROOT / "stages" / "s11_generate.py"


def test_errors_are_one_line_with_what_and_where():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError("bad"), "frames") == "frames: bad"
    assert (
        one_line(OSError(28, "No space left on device", "x.tar"), "frames") == "frames: x.tar: No space left on device"
    )
    assert one_line(OSError(28, "No space left on device")) == "No space left on device"
