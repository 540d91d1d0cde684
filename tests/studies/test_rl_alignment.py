"""The comparison of stage 3 with its variants: what an arm changes, what seeds tell, and what a hack is paid."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imports import ROOT

from mcpipe.bench.intervals import IntervalParams
from mcpipe.train.rl.params import TrainRLParams
from studies.alignment import arms, average_face, outcome
from studies.alignment.arms import GRPO, IPPO, START, TITLES, Place, Plan, Run

PLAN = Plan(seeds=[0, 1], iterations=3, prompts=2, learning_rate=3e-4, move_every=1, drawings=2)
INTERVAL = IntervalParams(resamples=400, seed=0)
WEIGHTS = {"text": 3.0, "identity": 1.0}


def place(tmp_path):
    return Place(ROOT, tmp_path / "adapter", tmp_path / "work")


def finished(folder, arm, seed, lift):
    """A run whose scores and rewards lie ``lift`` above those of the start."""
    run = Run(arm, seed, folder / f"{arm}-s{seed}")
    curves = run.folder / "model" / "live" / "plots" / "metrics"
    curves.mkdir(parents=True)
    for name, values in {"ratio": [1, 1 + lift], "ratio_deviation": [0, 2 * lift], "clip_share": [0, lift]}.items():
        (curves / f"{name}.tsv").write_text(
            "step\t" + name + "\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(values))
        )
    rows = [
        {
            "iteration": i,
            "place": place,
            "prompt": "p",
            "picture": k,
            "text": 0.1 * k + 0.4 * place + i * lift,
            "aesthetic": 0.1,
            "identity": 0.5,
            "heldout": 0.2,
        }
        for i in range(3)
        for place in range(2)
        for k in range(2)
    ]
    (run.folder / "model" / "rewards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.folder / "model" / "report.json").write_text(json.dumps({"facts": {"stopped": None}}))
    for drawing, shift in enumerate((-0.2, 0.2)):
        run.images(drawing).mkdir()
        run.results(drawing).mkdir()
        scores = [
            {"key": key, **dict.fromkeys(outcome.METRICS, 0.5 + lift + 0.01 * i + 0.1 * seed + shift)}
            for i, key in enumerate("abcd")
        ]
        pq.write_table(pa.Table.from_pylist(scores), run.results(drawing) / "rows.parquet")
    return run


@pytest.fixture
def some_runs(tmp_path):
    lifts = {START: 0.0, IPPO: 0.1, GRPO: -0.1}
    return [finished(tmp_path, arm, seed, lifts[arm] * (1 + seed)) for seed in (0, 1) for arm in TITLES]


def test_arms_differ_by_what_their_names_say(tmp_path):
    here = place(tmp_path)
    params = here.settings("train_rl", TrainRLParams)
    trained = {run.arm: arms.training(params, PLAN, run) for run in arms.runs(here, PLAN) if run.seed == 1}
    assert {arm: one.update.ratio for arm, one in trained.items() if arm != START} == {IPPO: "sequence", GRPO: "step"}
    assert {one.seed for one in trained.values()} == {1}
    assert trained[START].update.learning_rate < 1e-9
    assert {trained[arm].update.learning_rate for arm in (IPPO, GRPO)} == {PLAN.learning_rate}
    assert {one.window(2).start for one in trained.values()} == {2 * params.sampling.stride}


def test_what_is_finished_is_not_run_again_and_never_mixed(tmp_path, some_runs):
    here = place(tmp_path)
    assert [list(arms.finish(here, PLAN, run)) for run in some_runs] == [[]] * 6
    arms.settle(here, PLAN)
    arms.settle(here, PLAN.model_copy(update={"seeds": [0, 1, 2]}))
    here.adapter.mkdir()
    (here.adapter / "adapter.json").write_text("{}")
    with pytest.raises(ValueError, match="another plan and settings and adapter; delete it or name another --work"):
        arms.settle(here, PLAN.model_copy(update={"learning_rate": 1e-3}))


def test_changes_are_paired_and_claims_follow_them(some_runs):
    prompts, scores = outcome.blocks(some_runs)
    assert prompts == list("abcd")
    found = {(one.before, one.after, one.metric): one for one in outcome.changes(scores, INTERVAL)}
    assert found[START, IPPO, "clip_t"].change.value == pytest.approx(0.15)
    assert found[START, IPPO, "clip_t"].change.low == pytest.approx(0.1), "what prompts have in common cancels out"
    verdicts = [found[START, arm, "hps"].verdict for arm in (IPPO, GRPO)]
    assert verdicts == ["rises", "falls"]
    assert found[GRPO, IPPO, "face_sim"].change.value == pytest.approx(0.3)
    assert set(outcome.claims(list(found.values())).values()) == {"comes out"}


def test_training_is_told_against_the_twins_of_its_pictures(some_runs):
    found = outcome.courses(some_runs, WEIGHTS)
    np.testing.assert_allclose(found[IPPO].gain, [[0, 0.075, 0.15], [0, 0.15, 0.3]])
    np.testing.assert_allclose(outcome.late(found[IPPO].gain), [0.15, 0.3])
    np.testing.assert_allclose(found[IPPO].parts["text"][1], [0, 0.2, 0.4])
    assert not found[IPPO].parts["heldout"].any()
    assert outcome.spread(outcome.late(found[IPPO].gain)) == pytest.approx(0.15 / np.sqrt(2))
    assert found[IPPO].later.tolist() == [False, True]
    np.testing.assert_allclose(found[IPPO].deviation[:, 1], [0.2, 0.4])


def test_one_face_for_two_is_a_hack_that_row_maximum_pays_for():
    """A recogniser that sees a portrait's colour: red and green are strangers, their blend resembles both."""

    class Recogniser:
        def faces(self, picture):
            found = picture[:, 1:][np.abs(np.diff(picture.astype(int), axis=1)).sum(2) > 0].astype(float)
            colours = np.unique(found[(found != average_face.GREY).any(1)], axis=0)
            shown = colours / np.linalg.norm(colours, axis=1, keepdims=True)
            return type("Faces", (), {"embeddings": np.repeat(shown, self.copies, 0) if len(shown) else shown})

    portraits = [np.full((16, 16, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 250, 0))]
    people = [np.eye(3)[:2]] * 2
    found = {}
    for kind, picture in average_face.collages(portraits).items():
        recogniser = Recogniser()
        recogniser.copies = 2 if kind in ("two_averages", "twice") else 1
        found[kind] = average_face.paid(people, [picture, picture], recogniser)
    told = {kind: [round(float(one.rewards[m][0]), 3) for m in average_face.MATCHINGS] for kind, one in found.items()}
    assert told == {
        "portraits": [1.0, 0.5, 1.0],
        "one_average": [0.354, 0.0, 0.707],
        "two_averages": [0.707, 0.0, 0.707],
        "twice": [0.5, 0.0, 0.5],
    }
    assert {kind: one.num_faces.tolist() for kind, one in found.items()} == {
        "portraits": [2, 2], "one_average": [1, 1], "two_averages": [2, 2], "twice": [2, 2]
    }  # fmt: skip
    lead = average_face.leads({average_face.HONEST: found["portraits"], **found}, INTERVAL)["one_average"]
    assert lead[average_face.EXTRA].value == pytest.approx(0.707 - 0.354, abs=1e-3)
