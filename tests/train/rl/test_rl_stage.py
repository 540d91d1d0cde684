"""The stage of reinforcement on a random tiny generator, judged by the zoo: what it leaves behind."""

import json

import numpy as np
import pytest
from fake_scorers import Finder, Heldout, metric_scorers
from imports import ROOT
from PIL import Image
from record_fixtures import pair_prompt, pool_face
from rl_fixtures import network_of, settings

from mcpipe.bench.metrics import references
from mcpipe.core.params import read_params
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import PoolFace
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import AdapterSpec, ExpertParams, save_adapter
from mcpipe.models.protocols import Faces
from mcpipe.steps.evaluate import EvaluateParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.prompts import heldout_embedding, read_prompts
from mcpipe.train.rl.rollout_log import ImageScores, RolloutLog
from stages import s10_train_rl

SPEC = AdapterSpec(rank=4, experts=ExpertParams(num_experts=4, top_k=1, router="st"), image_size=32, reference_size=16)


@pytest.fixture
def inputs(generator, tmp_path):
    """A prompt about two people whose portraits show nobody, and an adapter."""
    rng = np.random.default_rng(0)
    faces = [
        pool_face(
            key,
            rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            closeup=np.zeros((84, 84, 3), np.uint8),
            embedding=np.eye(512, dtype=np.float32)[place],
        )
        for place, key in enumerate(("a", "b"))
    ]
    write_shards(faces, tmp_path / "pairs" / "faces", 8)
    prompts = [pair_prompt("two people in a park", "a", "b")]
    write_shards(prompts, tmp_path / "pairs" / "rl", 8)
    network_of(generator)
    (tmp_path / "train_multi").mkdir()
    save_adapter(generator.transformer, SPEC, tmp_path / "train_multi")
    return tmp_path / "pairs", tmp_path / "train_multi"


def test_a_run_leaves_an_adapter_scores_of_every_picture_and_a_grid(inputs, generator_folder, root, tmp_path):
    zoo, out = root / "zoo", tmp_path / "train_rl"
    packs = (zoo / "faces" / "models" / "puppet", zoo / "faces_heldout" / "models" / "puppet_heldout")
    params = settings(
        num_iterations=1, sampling={"num_steps": 3, "group_size": 2, "samples_per_pass": 1, "window_size": 1}
    )
    progress = progress_of(out)
    for other, file in (("useless", "rollouts"), ("resumable", "training.pt")):
        (progress / other / file).mkdir(parents=True)
    s10_train_rl.run(*inputs, generator_folder, *packs, zoo / "clip_reward", zoo / "hps_reward", out, params)
    assert [folder.name for folder in progress.iterdir()] == ["resumable"], "of runs with other settings"
    rows = [json.loads(line) for line in (out / "rewards.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["iteration"], row["prompt"], row["picture"]) for row in rows] == [(0, "a+b", 0), (0, "a+b", 1)]
    assert all({"text", "aesthetic", "identity", "heldout", "advantage"} <= row.keys() for row in rows)
    assert rows[0]["text"] != rows[1]["text"]
    assert rows[0]["heldout"] == 0, "a face that the held-out recogniser does not see is never found"
    assert Image.open(out / "pictures" / "grid.png").size == (32, 64), "before and after"
    facts = read_report(out)["facts"]
    assert facts["stopped"] is None
    assert facts["forwards"] == {"gradient": 2, "rollout": 1 + 2 * 2, "update": 1, "watch": 1 + 2 * 3}
    before, after = ((folder / "pytorch_lora_weights.safetensors").read_bytes() for folder in (inputs[1], out))
    assert before != after
    assert not list(tmp_path.rglob("*rollouts*")), "what was kept on the way is gone"


def test_an_iteration_that_is_repeated_is_written_down_once(tmp_path):
    log = RolloutLog(tmp_path / "rollouts")
    for texts in ([0.1, 0.2], [0.3, 0.4]):
        log.scores(0, [ImageScores(0, 0, "a", number, text, 0, 0, 0, 0) for number, text in enumerate(texts)])
        log.previews(0, np.full((2, 4, 4, 3), 100 * texts[0], np.uint8))
    log.scores(1, [ImageScores(1, 0, "a", 0, 0.5, 0, 0, 0, 0)])
    (tmp_path / "out").mkdir()
    log.export(tmp_path / "out")
    lines = (tmp_path / "out" / "rewards.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [0.3, 0.4, 0.5]
    grid = np.asarray(Image.open(tmp_path / "out" / "pictures" / "grid.png"))
    assert grid.shape == (4, 8, 3)
    assert (grid == 30).all()


def test_held_out_embeddings_are_those_of_the_evaluation_and_pixels_are_shared(inputs):
    """One picture has one embedding; at full size a copy per prompt would take 7 GB in every process."""
    pairs, _ = inputs
    write_shards([pair_prompt("two people", "a", "b"), pair_prompt("a person", "b", "a")], pairs / "rl", 8)
    prompts = read_prompts(pairs, SPEC, Heldout())
    evaluated = references(read_shards(pairs / "faces", PoolFace), metric_scorers(Finder([])))
    for prompt, keys in zip(prompts, ("ab", "ba"), strict=True):
        for number, key in enumerate(keys):
            assert np.array_equal(prompt.heldout_embeddings[number], evaluated[key].heldout)
            assert np.array_equal(prompt.embeddings[number], evaluated[key].identity)
    (first, second), (second_again, first_again) = (prompt.references for prompt in prompts)
    assert np.shares_memory(first, first_again)
    assert np.shares_memory(second, second_again)


def test_training_and_evaluation_look_for_faces_alike():
    """Otherwise one picture would have two scores."""
    training, evaluation = (
        read_params(ROOT / "params.yaml", name, model)
        for name, model in (("train_rl", TrainRLParams), ("evaluate", EvaluateParams))
    )
    assert training.min_face_score == evaluation.min_face_score
    assert training.detection_size == evaluation.detection_size


def test_the_most_certain_face_of_a_reference_is_its_person():
    class Analyser:
        name = "two"

        def faces(self, picture):
            return Faces(np.zeros((2, 4)), np.array([0.9, 0.8]), np.zeros((2, 5, 2)), np.eye(3)[:2])

    assert heldout_embedding(Analyser(), np.zeros((8, 8, 3), np.uint8), "a").tolist() == [1, 0, 0]
