"""The zoo's build: what is interrupted goes on, stages run side by side, figures stand where they are looked for."""

import inspect
import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from imports import ROOT, closure, imported_modules, module_file
from processes import output

from mcpipe.core.params import Params, read_params
from zoo.build import pose
from zoo.build.cards import CURVES, FIGURES, PICTURE, Card, Measured, curve_rows, write_card
from zoo.build.face_nets import EMBEDDING, export_onnx
from zoo.build.faces_heldout import agreement
from zoo.build.faces_heldout_recogniser import FacesHeldoutRecogniserParams, TransformerRecogniser, draw_faces
from zoo.build.parallel import Stage, chains, read_stages, run, with_needs
from zoo.build.pose import PoseParams, read_curves, strip, train, write_dataset
from zoo.build.publish import CHECKPOINTS
from zoo.build.publish import build as publish

BUILD = ROOT / "zoo" / "build"
GRAPH = yaml.safe_load((BUILD / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = GRAPH["stages"]
LEARNED_FROM = ("mcpipe.world.", "mcpipe.curate.", "mcpipe.flux.")
ATTRIBUTES = "out/attributes.txt"
BUILT = [name for name in STAGES if name != "attributes"]


def outs_of(name):
    """The results that a stage reads: those of other stages, with their owners."""
    owners = {out: owner for owner, stage in STAGES.items() for out in stage["outs"]}
    return {dep: owners[dep] for dep in STAGES[name]["deps"] if dep in owners}


def code_of(name):
    """The modules that decide what a stage learns.

    The zoo's own that it imports, and of the world and of curation what these import; though not what the builder of a
    result imports that the stage reads, because the result stands for that. Attributes are a stage of their own.
    """
    sources = {f"zoo.build.{owner}" for owner in outs_of(name).values()}
    own, waiting = set(), [f"zoo.build.{name}"]
    while waiting:
        own.add(module := waiting.pop())
        used = {other for other in imported_modules(module) if other.startswith("zoo.build.") and module_file(other)}
        waiting += used - own - sources
    taken = {other for module in own for other in imported_modules(module) if module_file(other)}
    deeper = {module for other in taken if other.startswith(LEARNED_FROM) for module in closure(other)}
    learned = {module for module in deeper if module.startswith(LEARNED_FROM)}
    return learned | {module for module in closure(f"zoo.build.{name}") if module.startswith("zoo.build.")}


def dependency_of(module):
    """As a module stands in dvc.yaml."""
    if module.startswith("mcpipe.world.attributes"):
        return ATTRIBUTES
    return os.path.relpath(module_file(module), BUILD)


@pytest.mark.parametrize("name", BUILT)
def test_a_stage_of_the_zoo_names_all_that_it_reads_and_all_its_code(name):
    stage = STAGES[name]
    read = " ".join(out for out in [*outs_of(name), *stage["outs"]] if out != ATTRIBUTES)
    assert stage["cmd"] == f"python -m zoo.build {name} {read}"
    needed = {dependency_of(module) for module in code_of(name)}
    assert sorted(dep for dep in stage["deps"] if dep.endswith((".py", ".txt"))) == sorted(needed)
    assert stage["params"] == [name]
    assert stage["outs"] == [name if name == "data" else f"out/{name}"]


def test_any_change_of_any_attribute_is_seen():
    """A new attribute is a new file and no other change, so the folder counts; DVC would count its byte code too."""
    stage = STAGES["attributes"]
    assert stage["always_changed"]
    command = stage["cmd"].removeprefix("mkdir -p out && ").removesuffix(f" > {ATTRIBUTES}")
    digest = output(["sh", "-c", command], cwd=BUILD)
    files = sorted((ROOT / "mcpipe" / "world" / "attributes").glob("*.py"))
    assert len(files) > 5
    assert digest == "".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("name", BUILT)
def test_the_settings_of_a_stage_are_complete(name):
    model = inspect.get_annotations(import_module(f"zoo.build.{name}").build, eval_str=True)["params"]
    assert issubclass(model, Params)
    read_params(BUILD / "params.yaml", name, model)


def test_every_checkpoint_has_a_stage_with_figures_and_curves():
    names = [figures.split("/")[1] for figures in GRAPH["metrics"]]
    assert set(CHECKPOINTS) <= set(names) <= set(STAGES)
    assert [name for plot in GRAPH["plots"] for name in plot] == names


@pytest.mark.parametrize("folder", sorted((BUILD / "figures").glob("*")), ids=lambda folder: folder.name)
def test_published_figures_are_those_of_the_checkpoint_and_have_the_curves_that_are_plotted(folder):
    name = folder.name
    if name in CHECKPOINTS:
        assert (folder / FIGURES).read_text(encoding="utf-8") == (ROOT / "zoo" / name / FIGURES).read_text(
            encoding="utf-8"
        )
    (plot,) = [plot[name] for plot in GRAPH["plots"] if name in plot]
    seen = {term for row in json.loads((folder / CURVES).read_text(encoding="utf-8")) for term in row}
    assert {"step", *plot["y"][f"figures/{name}/{CURVES}"]} <= seen


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A data set of two frames with one person each, in ultralytics' layout."""
    data, work = (tmp_path_factory.mktemp(name) for name in ("data", "work"))
    rng = np.random.default_rng(0)
    keypoints = np.dstack([rng.uniform(20, 60, (2, 3, 17, 2)).reshape(2, -1, 2), np.full((2, 51), 2.0)])
    absent = np.array([1.0, np.nan, np.nan])[:, None]
    frames = {
        "rgb": rng.integers(0, 256, (2, 64, 80, 3), dtype=np.uint8),
        "labels": np.zeros((2, 64, 80), np.uint8),
        "boxes": np.array([10.0, 10.0, 60.0, 60.0]) * np.ones((2, 3, 1)) * absent,
        "keypoints": keypoints.reshape(2, 3, 17, 3),
        "face_boxes": np.zeros((2, 3, 4)),
        "landmarks": np.zeros((2, 3, 5, 2)),
        "face_visible": np.zeros((2, 3)),
    }
    for split in ("train", "val"):
        np.savez(data / f"frames_{split}.npz", **frames)
    return write_dataset(data, work)


def test_a_pose_training_that_was_killed_goes_on_and_ends_with_all_its_epochs(dataset, tmp_path, monkeypatch):
    params = PoseParams(seed=1, width=0.125, depth=0.33, picture_size=64, epochs=2, batch=2, learning_rate=1e-3)
    scratch, keep = tmp_path / "pose.resume", pose._keep

    def killed(trainer):
        keep(trainer)
        if trainer.epoch == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(pose, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, scratch, params)
    seen = []
    monkeypatch.setattr(pose, "_keep", lambda trainer: (seen.append(trainer.epoch), keep(trainer)))
    kept = train(dataset, scratch, params)
    assert seen == [1]
    assert read_curves(scratch)["step"] == [1, 2]
    assert train(dataset, scratch, params) == kept
    assert seen == [1]
    train(dataset, scratch, params.model_copy(update={"epochs": 1}))
    assert seen == [1, 0], "progress of other settings is not continued"
    strip(kept, tmp_path / "pose.pt", params.picture_size)
    data = (tmp_path / "pose.pt").read_bytes()
    assert str(tmp_path).encode() not in data
    assert yaml.safe_load(dataset.read_text(encoding="utf-8"))["path"].encode() not in data


def stage(name, *needs, minutes=1.0):
    return Stage(name, frozenset(needs), minutes)


def started(log, failing=()):
    """Stand-ins for DVC that note when they begin and end."""
    script = "import sys, time; f = open(sys.argv[1], 'a'); print('+', sys.argv[2], file=f, flush=True); "
    script += "time.sleep(0.3); print('-', sys.argv[2], file=f, flush=True); sys.exit(int(sys.argv[3]))"

    def start(name):
        command = [sys.executable, "-S", "-c", script, str(log), name, str(int(name in failing))]
        return subprocess.Popen(command, encoding="utf-8", start_new_session=True)

    return start


def test_stages_run_two_at_a_time_after_what_they_need_and_long_chains_first(tmp_path):
    log = tmp_path / "log"
    stages = {s.name: s for s in (stage("short"), stage("first"), stage("last", "first", minutes=9), stage("other"))}
    assert chains(stages) == {"short": 1, "first": 10, "last": 9, "other": 1}
    assert run(stages, started(log)) == []
    events = log.read_text(encoding="utf-8").splitlines()
    assert {"+ first", "+ short"} == set(events[:2]), "two at once, the long chain's beginning among them"
    assert events.index("- first") < events.index("+ last")
    running = np.cumsum([1 if event[0] == "+" else -1 for event in events])
    assert running.max() == 2


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path):
    log = tmp_path / "log"
    stages = {s.name: s for s in (stage("bad"), stage("never", "bad"), stage("good"), stage("after", "good"))}
    assert run(stages, started(log, failing={"bad"})) == ["bad"]
    ended = {event[2:] for event in log.read_text(encoding="utf-8").splitlines() if event[0] == "-"}
    assert ended == {"bad", "good", "after"}


def test_an_interrupt_ends_the_stages_that_run(tmp_path):
    running = []

    def start(name):
        if running:
            raise KeyboardInterrupt
        running.append(subprocess.Popen(["sleep", "60"], encoding="utf-8", start_new_session=True))
        return running[0]

    with pytest.raises(KeyboardInterrupt):
        run({s.name: s for s in (stage("a"), stage("b"))}, start)
    assert running[0].poll() is not None


def test_one_checkpoint_needs_its_own_chain_alone():
    stages = read_stages(BUILD / "dvc.yaml")
    assert set(with_needs(stages, ["clip"])) == {"attributes", "pictures", "things", "clip"}
    assert set(with_needs(stages, ["faces"])) == {"attributes", "data", "face_detector", "face_recogniser", "faces"}


class Recipe(Params):
    """Settings of a stand-in for a trained checkpoint."""

    seed: int


def test_a_card_has_the_rounded_figures_of_its_metrics_and_all_parts(tmp_path):
    card = Card(title="T", what="W", data="of the world", limits="none known", bars={"right": "share"})
    curves = {
        "eye_step": [100.0, 200.0],
        "eye_loss": [2.0, 1.0],
        "step": [100.0, 300.0],
        "loss": [3.0, 0.5],
        "late": [7.0],
    }
    write_card(tmp_path, card, Measured("thing", {"right": 0.987654, "wrong": 1.0}, curves, Recipe(seed=4)))
    assert json.loads((tmp_path / FIGURES).read_text(encoding="utf-8")) == {"thing": {"right": 0.9877, "wrong": 1.0}}
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for part in ("# T", "W", "## Data", "| right | 0.9877 | share |", '"seed": 4', PICTURE, "## Limits\n\nnone known"):
        assert part in text
    assert json.loads((tmp_path / CURVES).read_text(encoding="utf-8")) == curve_rows(curves)
    assert curve_rows(curves) == [
        {"step": 100, "eye_loss": 2, "loss": 3, "late": None},
        {"step": 200, "eye_loss": 1, "loss": None, "late": None},
        {"step": 300, "eye_loss": None, "loss": 0.5, "late": 7},
    ]
    assert (tmp_path / PICTURE).stat().st_size < 40_000


def test_publishing_replaces_whole_checkpoints_and_keeps_figures_apart(tmp_path):
    results, zoo, figures = tmp_path / "out", tmp_path / "zoo", tmp_path / "figures"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        publish(results, zoo, figures)
    for name in ("clip", "vae"):
        (results / name).mkdir(parents=True)
        for file in (FIGURES, CURVES, PICTURE, "weights"):
            (results / name / file).write_text(name, encoding="utf-8")
    (zoo / "clip").mkdir(parents=True)
    (zoo / "clip" / "left over").write_text("", encoding="utf-8")
    publish(results, zoo, figures)
    assert sorted(file.name for file in (zoo / "clip").iterdir()) == sorted([FIGURES, PICTURE, "weights"])
    assert [folder.name for folder in zoo.iterdir()] == ["clip"]
    assert sorted(str(file.relative_to(figures)) for file in figures.rglob("*.json")) == sorted(
        f"{name}/{file}" for name in ("clip", "vae") for file in (FIGURES, CURVES)
    )


def test_weights_in_half_precision_compute_nearly_the_same(tmp_path):
    torch.manual_seed(0)
    net = TransformerRecogniser(32, 1, 2).eval()
    faces = torch.rand(3, 3, 112, 112) * 2 - 1
    export_onnx(net, faces[:1], tmp_path / "rec.onnx", "input.1", ["embedding"])
    session = onnxruntime.InferenceSession(tmp_path / "rec.onnx", providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"input.1": faces.numpy()})
    with torch.no_grad():
        wanted = net(faces).numpy()
    assert embeddings.shape == (3, EMBEDDING)
    assert np.abs(embeddings - wanted).max() < 0.01 * np.abs(wanted).max()
    stored = onnx.load(tmp_path / "rec.onnx").graph.initializer
    numbers = sum(weight.numel() for weight in net.parameters())
    assert sum(len(tensor.raw_data) for tensor in stored) < 2.2 * numbers


def test_the_second_recogniser_learns_people_of_its_own():
    params = FacesHeldoutRecogniserParams(
        **read_section("faces_heldout_recogniser") | {"num_identities": 3, "num_views": 3}
    )  # fmt: skip
    faces = draw_faces(params)
    assert faces.shape == (3, 3, 112, 112, 3)
    assert faces.std(axis=(2, 3, 4)).min() > 10, "everybody is seen in every view"
    assert read_section("faces_heldout_recogniser")["fit"]["seed"] != read_section("face_recogniser")["fit"]["seed"]


def read_section(name):
    return yaml.safe_load((BUILD / "params.yaml").read_text(encoding="utf-8"))[name]


def test_agreement_is_high_for_the_same_recogniser_and_none_for_an_independent_one():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(60, 512)) for _ in range(2))
    assert agreement(first, first) == pytest.approx({"stranger_correlation": 1.0, "shared_false_matches": 1.0})
    apart = agreement(first, second)
    assert abs(apart["stranger_correlation"]) < 0.1
    assert apart["shared_false_matches"] < 0.2
