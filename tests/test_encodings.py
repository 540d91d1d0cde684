"""Text is UTF-8 wherever it is read or written, whatever the locale of the machine."""

import ast
import os
import sys

from imports import ROOT, syntax_tree
from processes import completed

FOLDERS = ("mcpipe", "stages", "studies", "zoo", "benchmarks", "tests")
POSITION = {"read_text": 0, "write_text": 1}
"""Position of the argument ``encoding`` among the positional ones."""
BINARY = {"av", "Image", "os", "webbrowser"}
"""Owners of functions called ``open`` that open no text."""


def text_calls(tree):
    """Calls that read, write or decode text, or names in archives, without saying how it is encoded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_text(node) and not any(word.arg == "encoding" for word in node.keywords):
            yield node


def _is_text(call):
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    words = {word.arg: word.value for word in call.keywords}
    if name in POSITION:
        return owner is not None and len(call.args) <= POSITION[name]
    if name in ("TextIOWrapper", "FileHandler"):
        return True
    if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        if isinstance(owner, ast.Name) and owner.id in BINARY:
            return name == "fdopen"
        modes = [value.value for value in [*call.args[:2], words.get("mode")] if isinstance(value, ast.Constant)]
        is_archive = isinstance(owner, ast.Name) and owner.id == "tarfile"
        binary = any(isinstance(mode, str) and set(mode) <= set("rwxab+t") and "b" in mode for mode in modes)
        return is_archive or not (binary or (name.endswith("File") and not modes))
    return name in ("run", "Popen", "check_output") and bool({"text", "universal_newlines"} & words.keys())


def test_every_text_names_its_encoding():
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    faults = [f"{file.relative_to(ROOT)}:{call.lineno}" for file in files for call in text_calls(syntax_tree(file))]
    assert faults == []


def test_the_check_finds_what_it_looks_for():
    good = """
open(x, "rb"); open(x, encoding="utf-8"); x.open("rb"); Image.open(x); x.read_text("utf-8"); x.write_text(y, "utf-8")
read_text(x); tarfile.open(x, encoding="utf-8"); run(x, encoding="utf-8"); TemporaryFile(); x.open(y, "rb")
"""
    bad = """
open(x); open(x, "w"); x.open(); x.open("w"); x.read_text(); x.write_text(y); tarfile.open(x, "r:"); run(x, text=True)
NamedTemporaryFile("w"); x.open(y, "r"); x.open(mode="a"); os.fdopen(x)
"""
    assert list(text_calls(ast.parse(good))) == []
    assert len(list(text_calls(ast.parse(bad)))) == bad.count(")")


WORK = """
import sys
from pathlib import Path

import numpy as np

from mcpipe.core.params import read_params
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.curate.clips import clip_files
from mcpipe.models.protocols import Faces
from mcpipe.steps.pairs import PairsParams, write_faces


class Finder:
    def faces(self, picture):
        box = np.array([[4, 4, 12, 12]], np.float32)
        return Faces(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32), np.ones((1, 4), np.float32) / 2)


pool, settings, out = map(Path, sys.argv[1:])
write_faces(pool, Finder(), out, read_params(settings, "pairs", PairsParams))
assert read_report(out)["kept"] == 1
(face,) = read_shards(out, PoolFace)
assert (face.key, face.attributes) == ("J\\u00fcrg", {"hair": "wei\\u00df"}), face
(out / "keys").write_bytes("\\n".join(f"{clip.key} {clip.title} {clip.digest()}" for clip in clip_files(pool)).encode())
"""


def test_the_same_bytes_come_out_in_a_locale_of_ascii(tmp_path):
    import yaml
    from PIL import Image

    pool = tmp_path / "pool"
    pool.mkdir()
    Image.new("RGB", (16, 16), "red").save(pool / "J\u00fcrg.png")
    (pool / os.fsdecode(b"no text \xff.txt")).write_bytes(b"x")
    (pool / "faces.csv").write_text("file,hair\nJ\u00fcrg.png,wei\u00df\n", encoding="utf-8")
    content = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "pairs" in yaml.safe_load(content)
    (tmp_path / "params.yaml").write_text(f"# gr\u00fcn\n{content}", encoding="utf-8")
    outputs = []
    for number, locale in enumerate(({"PYTHONUTF8": "1"}, {"PYTHONUTF8": "0", "LC_ALL": "C"})):
        out = tmp_path / str(number)
        command = [sys.executable, "-c", WORK, str(pool), str(tmp_path / "params.yaml"), str(out)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | locale
        done = completed(command, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        outputs.append({file.name: file.read_bytes() for file in sorted(out.iterdir())})
    assert outputs[0] == outputs[1]
    assert "J\u00fcrg%2Epng J\u00fcrg.png".encode() in outputs[0]["keys"]
