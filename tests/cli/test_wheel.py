"""A wheel built from the tree holds ``mcpipe`` alone, and its verbs work in an empty folder."""

import json
import subprocess
import sys
import zipfile

import pytest
from imports import ROOT

from mcpipe.core.params import read_params
from mcpipe.world.clips import WorldParams, clip_specs, write_clip

MODELS = {
    "pose": "pose/pose.pt", "segmenter": "segmenter", "faces": "faces/models/puppet", "captioner": "captioner",
    "faces_heldout": "faces_heldout/models/puppet_heldout", "generator": "generator", "clip": "clip", "dino": "dino",
    "hps": "hps",
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked as an installer would, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["uv", "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "empty").mkdir()
    return folder


def mcpipe(folder, *arguments):
    """Run a verb of the wheel outside of any checkout."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from mcpipe.cli.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-I", "-c", code, str(folder / "site"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder / "empty", capture_output=True, encoding="utf-8", check=False)


def zoo(*names):
    return [word for name in names for word in ("-S", f"models.{name}={ROOT / 'zoo' / MODELS[name]}")]


def test_a_wheel_holds_mcpipe_alone(installed):
    names = {path.name for path in (installed / "site").iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mcpipe"}
    defaults = installed / "site" / "mcpipe" / "defaults"
    assert (defaults / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert (defaults / "conf" / "scale" / "paper.yaml").is_file()
    helped = mcpipe(installed, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "curate" in helped.stdout


def test_verbs_of_the_wheel_work_in_an_empty_folder(installed, tmp_path):
    world = read_params(ROOT / "params.yaml", "world", WorldParams)
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips, next(spec for spec in clip_specs(world) if spec.kind == "good"), world)
    models = zoo("pose", "segmenter", "faces", "captioner", "generator")
    curated = mcpipe(installed, "curate", clips, "--out", "curated", *models)
    assert curated.returncode == 0, curated.stderr
    (row,) = json.loads((installed / "empty" / "curated" / "funnel.json").read_text(encoding="utf-8"))
    assert row["reason"] is None
    doctor = mcpipe(installed, "doctor", *zoo(*MODELS), "-S", f"source.clips={clips}", "-S", f"source.faces={clips}")
    assert "accepted by all 14 stages" in doctor.stdout, doctor.stderr
    for verb, arguments in {
        "generate": ["--reference", "none.png", "--prompt", "two people", "--out", "x.png"],
        "score": ["--suite", "mcpipe", "--images", "none", "--name", "x"],
    }.items():
        refused = mcpipe(installed, verb, *arguments)
        assert refused.returncode == 1
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
