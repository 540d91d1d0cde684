"""Reinforcement on two processes, with whole and with sharded weights: the result is that of one."""

import os
import pickle
import socket
import sys
from functools import partial

import numpy as np
import pytest
from processes import exit_code, forked
from rl_fixtures import BrightnessScorer, MemoryLog, learner_of, network_of, prompts_of
from torch.distributed.tensor import DTensor
from training_fixtures import Killed, divide_by_no_small_gradient

from mcpipe.flux.backbone import load_generator
from mcpipe.train.loop import checkpoint as checkpoints
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.runtime import process_state
from mcpipe.train.rl import trainer as rl


@pytest.fixture(autouse=True)
def even_steps(monkeypatch):
    divide_by_no_small_gradient(monkeypatch, rl)


class FailsFor:
    """Fails on every image of one prompt."""

    def __init__(self, text):
        self.text, self.inner = text, BrightnessScorer()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def scores(self, pictures, prompts):
        if prompts[0] == self.text:
            raise RuntimeError("no more memory")
        return self.inner.scores(pictures, prompts)


def whole(weight):
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().numpy().ravel()


def trained(generator_folder, people, folder, *, failing="", killed=False, **changes):
    generator = load_generator(generator_folder)
    scorer = FailsFor(failing) if failing else BrightnessScorer()
    learner, report = learner_of(generator, network_of(generator), scorer, prompts_per_iteration=2, **changes)
    seen, log = [], MemoryLog()

    def on_step(step, values):
        seen.append(values)
        if killed and step == 2:
            raise Killed

    facts = rl.train_rl(learner, prompts_of(people), on_step, Checkpoint(folder), log)
    weights = np.concatenate([whole(weight) for weight in learner.weights])
    return facts, seen, log.logged, report.kept, weights


def one_of_two(rank, port, environment, folder, work):
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", **environment,
    }  # fmt: skip
    process_state()  # as the stage begins
    try:
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(work()))
    except Killed:
        sys.exit(9)


def on_two(folder, work, codes=(0, 0), **environment):
    """What each of two processes returns, by rank; nothing if they are to end with other codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    processes = [forked(one_of_two, rank, port, environment, folder, work, daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    assert [exit_code(process) for process in processes] == [*codes]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)] if codes == (0, 0) else []


def scores_of(logged):
    return [
        value
        for rows in logged.values()
        for row in rows
        for value in row.to_record().values()
        if isinstance(value, float)
    ]


COUNTED = ("rollout", "update", "gradient")


def assert_same(together, alone):
    """Up to rounding in another order; what is counted exactly.

    A pixel that is rounded to the next of 256 levels changes a reward, and advantages divide it by a small spread.
    """
    facts, seen, logged, kept, weights = together
    assert kept == alone[3]
    assert [len(rows) for rows in logged.values()] == [len(rows) for rows in alone[2].values()]
    assert scores_of(logged) == pytest.approx(scores_of(alone[2]), abs=1e-2)
    for values, expected in zip(seen, alone[1], strict=True):
        assert values == pytest.approx(expected, rel=1e-2, abs=1e-4)
    np.testing.assert_allclose(weights, alone[4], rtol=1e-3, atol=1e-5)
    assert all(facts["forwards"][name] == alone[0]["forwards"][name] for name in COUNTED)


@pytest.mark.parametrize(
    ("sharding", "gradient", "checkpointing"),
    [("none", "joint", "0"), ("adapter", "joint", "1"), ("adapter", "two_pass", "0"), ("all", "joint", "0")],
)
def test_two_processes_have_the_losses_and_rewards_of_one(
    generator_folder, people, tmp_path, sharding, gradient, checkpointing
):
    """Also where the first update takes the rollout's graphs, whose sharded weights are gathered again for it."""
    changes = {"update": {"gradient": gradient}}
    alone = trained(generator_folder, people, tmp_path / "alone", **changes)
    runtime = {"MCPIPE_SHARDING": sharding, "MCPIPE_GRADIENT_CHECKPOINTING": checkpointing}
    both = on_two(tmp_path / "two", partial(trained, generator_folder, people, tmp_path / "two", **changes), **runtime)
    assert np.array_equal(both[0][4], both[1][4])
    for together in both:
        assert_same(together, alone)


def test_a_group_without_scores_runs_along_and_changes_nothing(generator_folder, people, tmp_path):
    """Its process would otherwise leave the others waiting for its shards."""
    failing = "two people in a park"
    alone = trained(generator_folder, people, tmp_path / "alone", failing=failing)
    work = partial(trained, generator_folder, people, tmp_path / "two", failing=failing)
    both = on_two(tmp_path / "two", work, MCPIPE_SHARDING="adapter")
    assert [len(rows) for rows in alone[2].values()] == [4, 4], "one group of an iteration is dropped"
    for _, seen, _, kept, weights in both:
        assert kept == alone[3]
        for values, expected in zip(seen, alone[1], strict=True):
            assert values == pytest.approx(expected, rel=1e-2, abs=1e-4)
        np.testing.assert_allclose(weights, alone[4], rtol=1e-3, atol=1e-5)


def test_a_sharded_training_that_was_killed_goes_on_to_the_same_bit(generator_folder, people, tmp_path, monkeypatch):
    """Also with another layout of the base."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", -1.0)
    monkeypatch.setattr(checkpoints, "MOST_OF_THE_TIME", 1e9)
    work = partial(trained, generator_folder, people)
    whole_run = on_two(tmp_path / "whole", partial(work, tmp_path / "whole"), MCPIPE_SHARDING="adapter")
    killed = tmp_path / "killed"
    on_two(killed, partial(work, killed, killed=True), codes=(9, 9), MCPIPE_SHARDING="all")
    assert (killed / checkpoints.FILE).is_file()
    resumed = on_two(killed, partial(work, killed), MCPIPE_SHARDING="adapter")
    for (_, seen, *_, weights), (_, expected, *_, expected_weights) in zip(resumed, whole_run, strict=True):
        assert seen == expected
        assert np.array_equal(weights, expected_weights)
