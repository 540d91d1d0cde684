"""Reinforcement on two processes: the result is that of one."""

import multiprocessing
import os
import pickle
import socket

import numpy as np
from processes import exit_code
from rl_fixtures import BrightnessScorer, MemoryLog, learner_of, network_of, prompts_of

from mcpipe.flux.backbone import load_generator
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.rl import trainer as rl


def trained(generator_folder, people, folder):
    generator = load_generator(generator_folder)
    learner, report = learner_of(generator, network_of(generator), BrightnessScorer(), prompts_per_iteration=2)
    seen, log = [], MemoryLog()
    facts = rl.train_rl(learner, prompts_of(people), lambda _, values: seen.append(values), Checkpoint(folder), log)
    weights = np.concatenate([weight.detach().numpy().ravel() for weight in learner.weights])
    return facts, seen, log.logged, report.kept, weights


def one_of_two(rank, port, generator_folder, people, folder):
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(trained(generator_folder, people, folder)))


def test_two_processes_end_where_one_does(generator_folder, people, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forking = multiprocessing.get_context("fork")
    processes = [
        forking.Process(target=one_of_two, args=(rank, port, generator_folder, people, tmp_path), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    alone = trained(generator_folder, people, tmp_path / "alone")
    assert [exit_code(process) for process in processes] == [0, 0]
    both = {rank: pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(2)}
    for rank, (facts, seen, logged, kept, weights) in both.items():
        assert kept == alone[3]
        assert [len(rows) for rows in logged.values()] == [8, 8]
        assert logged == alone[2], "every process logs every image's scores"
        assert seen == alone[1]
        assert np.array_equal(weights, alone[4]), f"process {rank} has other weights"
        assert {name: facts["forwards"][name] for name in ("rollout", "update", "gradient")} == {
            name: alone[0]["forwards"][name] for name in ("rollout", "update", "gradient")
        }
