"""A wheel built from the tree holds ``mcpipe`` alone, and its verbs work in an empty folder."""

import json
import shutil
import sys

import pytest
from imports import ROOT
from processes import output

from mcpipe.core.params import read_params
from mcpipe.world.clips import WorldParams, clip_specs, write_clip

MODELS = {
    "pose": "pose/pose.pt", "segmenter": "segmenter", "faces": "faces/models/puppet", "captioner": "captioner",
    "faces_heldout": "faces_heldout/models/puppet_heldout", "generator": "generator", "clip": "clip", "dino": "dino",
    "hps": "hps", "reward_clip": "clip_reward", "reward_hps": "hps_reward",
}  # fmt: skip


SOURCES = ("mcpipe", "conf", "params.yaml", "setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
"""What every installer calls, with the setuptools of this environment: nothing is fetched."""
VERBS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout

sys.path.insert(0, sys.argv[1])
from mcpipe.cli.__main__ import main

answers = []
for arguments in json.loads(sys.argv[2]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    answers.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel of a copy of the tree, installed into a folder of its own, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for name in ("stages", "zoo", "studies", "tests"):
        (source / name).mkdir()
        (source / name / "__init__.py").write_text("", encoding="utf-8")
    output([sys.executable, "-c", BUILD, folder], cwd=source)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    output([*pip, "--target", folder / "site", wheel])
    (folder / "empty").mkdir()
    return folder


def mcpipe(folder, *verbs):
    """Exit status and output of some verbs of the wheel, run one after the other outside of any checkout."""
    words = [[str(word) for word in arguments] for arguments in verbs]
    answers = output([sys.executable, "-I", "-c", VERBS, folder / "site", json.dumps(words)], cwd=folder / "empty")
    return json.loads(answers.splitlines()[-1])


def zoo(*names):
    return [word for name in names for word in ("-S", f"models.{name}={ROOT / 'zoo' / MODELS[name]}")]


def test_a_wheel_holds_mcpipe_alone(installed):
    names = {path.name for path in (installed / "site").iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mcpipe", "bin"}
    assert [script.name for script in (installed / "site" / "bin").iterdir()] == ["mcpipe"]
    defaults = installed / "site" / "mcpipe" / "defaults"
    assert (defaults / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert (defaults / "conf" / "scale" / "paper.yaml").is_file()


def test_verbs_of_the_wheel_work_in_an_empty_folder(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("MCPIPE_ENGINE", "inline")  # tests/execution/test_engine.py is about the others
    world = read_params(ROOT / "params.yaml", "world", WorldParams)
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips, next(spec for spec in clip_specs(world) if spec.kind == "good"), world)
    models = zoo("pose", "segmenter", "faces", "captioner", "generator")
    helped, curated, doctor, *refused = mcpipe(
        installed,
        ["--help"],
        ["curate", clips, "--out", "curated", *models],
        ["doctor", *zoo(*MODELS), "-S", f"source.clips={clips}", "-S", f"source.faces={clips}"],
        ["generate", "--reference", "none.png", "--prompt", "two people", "--out", "x.png"],
        ["score", "--suite", "mcpipe", "--images", "none", "--name", "x"],
    )
    assert (helped[0], "curate" in helped[1]) == (0, True), helped
    assert curated[0] == 0, curated[2]
    (row,) = json.loads((installed / "empty" / "curated" / "funnel.json").read_text(encoding="utf-8"))
    assert row["reason"] is None
    assert "accepted by all 14 stages" in doctor[1], doctor[2]
    for status, _, error in refused:
        assert status == 1
        assert len(error.splitlines()) == 1, error
