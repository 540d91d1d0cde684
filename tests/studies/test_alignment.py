"""The study of stage 3: changes, gains in training, and what a hack is paid."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from imports import ROOT

from mcpipe.bench.intervals import IntervalParams
from mcpipe.core.params import check_params
from studies.alignment import analysis, average_face, page
from studies.alignment.analysis import METRICS, AlignmentPlan
from studies.plan import experiments
from studies.trials import Trial

INTERVAL = IntervalParams(resamples=400, seed=0)
LIFTS = {"start": 0.0, "ippo": 0.1, "grpo": -0.1}


@pytest.fixture
def plan():
    """The study's own plan, smaller."""
    content = yaml.safe_load((ROOT / "studies" / "alignment" / "plan.yaml").read_text(encoding="utf-8"))
    content |= {"seeds": [0, 1], "drawings": 2, "interval": INTERVAL.model_dump()}
    content["controls"][0]["settings"] = {"rl_update.learning_rate": 1e-12}
    return check_params(content, AlignmentPlan)


@pytest.fixture
def trials(plan, tmp_path):
    """Finished experiments whose scores and rewards lie above those of the start, by arm and seed."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["train_rl"]["rewards"] |= {"text": 3.0, "aesthetic": 0.0, "identity": 1.0}
    finished = []
    for experiment in experiments(plan):
        trial = Trial(experiment, tmp_path / experiment.name)
        lift = LIFTS[experiment.arm.name] * (1 + experiment.seed)
        results = trial.folder / "data" / "results" / "train_rl"
        results.mkdir(parents=True)
        shift = 0.1 * experiment.seed + (-0.2, 0.2)[experiment.drawing]
        scores = [{"key": key, **dict.fromkeys(METRICS, 0.5 + lift + 0.01 * i + shift)} for i, key in enumerate("abcd")]
        pq.write_table(pa.Table.from_pylist(scores), results / "rows.parquet")
        (trial.folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        write_training(trial.model("train_rl"), lift)
        finished.append(trial)
    return finished


def write_training(folder, lift):
    curves = folder / "live" / "plots" / "metrics"
    curves.mkdir(parents=True)
    for name, values in {
        "ratio": [1, 1 + lift],
        "ratio_deviation": [0, 2 * abs(lift)],
        "clip_share": [0, abs(lift)],
    }.items():
        lines = [f"{i}\t{value}\n" for i, value in enumerate(values)]
        (curves / f"{name}.tsv").write_text("".join([f"step\t{name}\n", *lines]), encoding="utf-8")
    rows = [
        {"iteration": i, "place": place, "prompt": "p", "picture": k, "text": 0.1 * k + 0.4 * place + i * lift}
        | {"aesthetic": 0.1, "identity": 0.5, "heldout": 0.2}
        for i in range(3)
        for place in range(2)
        for k in range(2)
    ]
    (folder / "rewards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps({"stage": "train_rl", "facts": {"stopped": None}}), encoding="utf-8")


def some_payments(folder):
    """Payments as if a blend were paid more by row maximum alone."""
    assert folder.name == "alignment-start-s0-d0"
    random = np.random.default_rng(0)
    honest = {matching: random.uniform(size=4) for matching in average_face.MATCHINGS}
    blend = honest | {"row_max": honest["row_max"] + 0.2}
    image = np.zeros((8, 8, 3), np.uint8)
    return {
        kind: average_face.Payment(blend if kind == "one_average" else honest, np.full(4, 2.0), image)
        for kind in average_face.KINDS
    }


def test_changes_are_paired_and_claims_follow_them(plan, trials, tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "average_face", some_payments)
    out = tmp_path / "out"
    out.mkdir()
    text = page.write(plan, "c" * 40, trials, out)
    assert {file.name for file in out.iterdir()} == {
        "alignment.md", "alignment.json", "alignment.png", "average_face.png", "average_face.csv", "scores.csv"
    }  # fmt: skip
    assert "HPS rises: comes out" in text
    content = json.loads((out / "alignment.json").read_text(encoding="utf-8"))
    changes = {(each["before"], each["after"], each["metric"]): each for each in content["changes"]}
    own = changes["start", "ippo", "clip_t"]["change"]
    assert own["value"] == pytest.approx(0.15)
    assert own["low"] == pytest.approx(0.1), "what prompts have in common cancels out"
    assert [changes["start", arm, "hps"]["verdict"] for arm in ("ippo", "grpo")] == ["rises", "falls"]
    assert changes["grpo", "ippo", "face_sim"]["change"]["value"] == pytest.approx(0.3)
    assert set(content["claims"].values()) == {"comes out"}
    assert content["average_face_leads"]["one_average"]["row_max - hungarian"]["value"] == pytest.approx(0.2)
    assert content["stopped"] == {}
    recorded = json.loads((ROOT / "data" / "alignment" / "alignment.json").read_text(encoding="utf-8"))
    assert recorded.keys() - content.keys() == {"adapter", "arms"}


def test_gains_are_against_the_twins_of_images(plan, trials):
    first = [trial for trial in trials if trial.experiment.drawing == 0]
    own, start = ([trial for trial in first if trial.arm.name == arm] for arm in ("ippo", "start"))
    curves = analysis.training_curves(own, start)
    np.testing.assert_allclose(curves.gain, [[0, 0.075, 0.15], [0, 0.15, 0.3]])
    np.testing.assert_allclose(analysis.late(curves.gain), [0.15, 0.3])
    np.testing.assert_allclose(curves.parts["text"][1], [0, 0.2, 0.4])
    assert not curves.parts["heldout"].any()
    assert analysis.spread(analysis.late(curves.gain)) == pytest.approx(0.15 / np.sqrt(2))
    assert curves.later.tolist() == [False, True]
    np.testing.assert_allclose(curves.deviation[:, 1], [0.2, 0.4])


def test_an_analysis_reads_no_more_than_it_needs(plan):
    paths = {each.name: analysis.paths(plan, each) for each in experiments(plan)}
    assert paths["alignment-grpo-s1-d1"] == ["data/results/train_rl/rows.parquet"]
    assert "data/models/train_rl" in paths["alignment-grpo-s1-d0"]
    assert [name for name, some in paths.items() if "data/pairs" in some] == ["alignment-start-s0-d0"]


def test_one_face_for_two_is_a_hack_that_row_maximum_pays_for():
    """A recogniser that sees a portrait's colour: red and green are strangers, their blend resembles both."""

    class Recogniser:
        def faces(self, picture):
            pixels = picture[:, 1:][np.abs(np.diff(picture.astype(int), axis=1)).sum(2) > 0].astype(float)
            colours = np.unique(pixels[(pixels != average_face.GREY).any(1)], axis=0)
            directions = colours / np.linalg.norm(colours, axis=1, keepdims=True)
            return type(
                "Faces", (), {"embeddings": np.repeat(directions, self.copies, 0) if len(directions) else directions}
            )

    portraits = [np.full((16, 16, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 250, 0))]
    people = [np.eye(3)[:2]] * 2
    payments = {}
    for kind, picture in average_face.collages(portraits).items():
        recogniser = Recogniser()
        recogniser.copies = 2 if kind in ("two_averages", "twice") else 1
        payments[kind] = average_face.payment(people, [picture, picture], recogniser)
    rewards = {
        kind: [round(float(payment.rewards[m][0]), 3) for m in average_face.MATCHINGS]
        for kind, payment in payments.items()
    }
    assert rewards == {
        "portraits": [1.0, 0.5, 1.0],
        "one_average": [0.354, 0.0, 0.707],
        "two_averages": [0.707, 0.0, 0.707],
        "twice": [0.5, 0.0, 0.5],
    }
    assert {kind: payment.num_faces.tolist() for kind, payment in payments.items()} == {
        "portraits": [2, 2], "one_average": [1, 1], "two_averages": [2, 2], "twice": [2, 2]
    }  # fmt: skip
    lead = average_face.leads({average_face.HONEST: payments["portraits"], **payments}, INTERVAL)["one_average"]
    assert lead[average_face.EXTRA].value == pytest.approx(0.707 - 0.354, abs=1e-3)
