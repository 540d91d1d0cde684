"""The same training on one process and on two: what a machine is made of does not change what is learned."""

import logging
import os
import re
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from imports import ROOT
from processes import PATIENCE_S, exit_code, forked, output
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing.spawn import ProcessRaisedException
from training_fixtures import MULTI, NEEDS_BITSANDBYTES, SINGLE, Killed, files_of, outcome

from mcpipe.train.loop.launch import starts_processes, together
from mcpipe.train.loop.runtime import broadcast_flag, process_state
from stages import s07_train_single, s08_train_multi
from stages.__main__ import main

STEPS = {"num_steps": 3, "batch_size": 4}
MEANS = {"flow", "attention", "attention_inside", "balance", "grad_norm"}
"""Curves that are means over samples, or follow from them; the busiest expert is one of those that a device sees."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def forget_processes():
    """Forget what a fork inherits about the processes of its parent."""
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)


def process(rank, port, work, environment):
    """What ``accelerate launch --cpu`` tells a process of two, then the work."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", **environment}
    forget_processes()
    try:
        work()
    except Killed:
        sys.exit(9)
    assert PartialState().num_processes == 2
    torch.distributed.destroy_process_group()


def on_two_processes(work, **environment):
    """Exit codes of two processes, forked, so that nothing is imported again."""
    port = free_port()
    running = [forked(process, rank, port, work, environment, daemon=True) for rank in range(2)]
    for worker in running:
        worker.start()
    return [exit_code(worker) for worker in running]


def assert_same(folder, other):
    """Up to rounding in another order."""
    (curves, weights), (others, other_weights) = outcome(folder), outcome(other)
    assert curves.keys() == others.keys()
    for name in curves.keys() & MEANS:
        np.testing.assert_allclose(others[name], curves[name], rtol=1e-5, err_msg=name)
    assert weights.keys() == other_weights.keys()
    for name in weights:
        np.testing.assert_allclose(other_weights[name], weights[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(encoded, short_generator_folder, tmp_path_factory):
    """The output of ``train_single``, learned by this process."""
    folder = tmp_path_factory.mktemp("alone") / "train_single"
    s07_train_single.run(encoded, short_generator_folder, folder, SINGLE.model_copy(update=STEPS))
    return folder


def stage(*arguments):
    """What ``python -m stages`` does in a new process."""
    logging.root.handlers.clear()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    forget_processes()
    sys.exit(main(list(arguments)))


def torchrun(folder, *arguments):
    """What ``torchrun --standalone --local-addr=127.0.0.1`` does, with processes that are forked."""
    os.chdir(folder)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # what torchrun redirects
    logs = DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="test",
        max_restarts=0, start_method="fork", logs_specs=logs, local_addr="127.0.0.1",
    )  # fmt: skip
    elastic_launch(config, stage)(*map(str, arguments))


def write_settings(folder, **changes):
    """Settings of ``train_single`` for two processes."""
    params = SINGLE.model_copy(update=STEPS | changes)
    flow = {name: getattr(params, name) for name in ("shift", "guidance", "text_dropout")}
    content = {"train_single": params.model_dump(exclude={*flow, "processes"}), "flow": flow}
    content["training"] = {"processes": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture(scope="module")
def launched(encoded, short_generator_folder, tmp_path_factory):
    """The output of ``train_single`` on two processes of torchrun; accelerate starts a single process on a CPU."""
    folder = tmp_path_factory.mktemp("launched")
    write_settings(folder)
    launcher = forked(torchrun, folder, "train_single", encoded, short_generator_folder, folder / "together")
    launcher.start()
    code = exit_code(launcher)
    logs = {file.parent.name: file.read_text(encoding="utf-8") for file in (folder / "logs").rglob("stderr.log")}
    assert code == 0, logs
    assert {rank: "training steps: 3/3" in log for rank, log in logs.items()} == {"0": True, "1": False}
    return folder / "together"


def test_two_processes_learn_what_one_learns(alone, launched):
    """Without sharding."""
    assert_same(alone, launched)


def alone_in(folder, *arguments):
    """The stage in a process that no launcher has started."""
    os.chdir(folder)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    stage(*map(str, arguments))


def test_a_stage_starts_the_processes_that_its_setting_names(launched, encoded, short_generator_folder, tmp_path):
    """With the same result as torchrun."""
    write_settings(tmp_path)
    process = forked(alone_in, tmp_path, "train_single", encoded, short_generator_folder, tmp_path / "out")
    process.start()
    assert exit_code(process) == 0
    assert files_of(tmp_path / "out") == files_of(launched)


def test_an_error_of_all_processes_is_one_line(encoded, short_generator_folder, tmp_path, capfd):
    write_settings(tmp_path)
    process = forked(alone_in, tmp_path, "train_single", encoded / "none", short_generator_folder, tmp_path / "out")
    process.start()
    assert exit_code(process) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if "rror" in line or "Traceback" in line]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert str(encoded / "none") in errors[0]
    assert not (tmp_path / "out").exists()


def second_fails(kind):
    """The second process fails while the first waits for it."""
    forget_processes()
    if process_state().process_index == 1:
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("no such face") if kind == "wrong input" else TypeError("a bug")
    broadcast_flag(flag=True)
    broadcast_flag(flag=True)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("wrong input", ValueError, r"^no such face$"),
        ("killed", ChildProcessError, r"^process 2 of 2 of the training was ended by SIGKILL"),
        ("bug", ProcessRaisedException, r"a bug"),
    ],
)
def test_a_process_that_fails_ends_all_with_its_own_reason(kind, error, message):
    with pytest.raises(error, match=message):
        together(2, 8, second_fails, kind)


def waits(folder):
    forget_processes()
    rank = process_state().process_index
    (folder / f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    if rank == 0:
        time.sleep(PATIENCE_S)
    broadcast_flag(flag=True)


def is_running(process):
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    parent = forked(together, 4, 6, waits, tmp_path)
    parent.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(files := list(tmp_path.glob("*.pid"))) < 2 or not all(file.read_text(encoding="utf-8") for file in files):
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.05)
    ranks = [int(file.read_text(encoding="utf-8")) for file in files]
    parent.kill()
    assert exit_code(parent) == -signal.SIGKILL
    while any(map(is_running, ranks)):
        assert time.monotonic() < deadline, "a process has outlived its parent"
        time.sleep(0.05)


def test_a_launcher_and_a_gpu_decide_about_processes(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert starts_processes({})
    assert not starts_processes({"WORLD_SIZE": "1"})
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not starts_processes({})


WORK = """
import sys
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
rank = torch.tensor([state.process_index + 1])
torch.distributed.all_reduce(rank)
words = [state.num_processes, state.device.type, torch.distributed.get_backend(), int(rank), *sys.argv[1:]]
sys.stdout.write(" ".join(map(str, words)) + "\\n")  # at once, since both processes write to one pipe
state.destroy_process_group()
"""
"""What `mcpipe.train.loop.runtime` asks of Accelerate, and a sum over processes."""


def test_the_documented_command_line_starts_two_processes_that_reach_each_other(tmp_path):
    """The stage is replaced by a small module, the port by a free one of this machine's own address."""
    page = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`ACCELERATE_USE_CPU=true torchrun (.*?) -m stages \.\.\.`", page)
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    local = ["--standalone", "--local-addr=127.0.0.1", *shlex.split(command)]
    lines = output(
        [sys.executable, "-m", "torch.distributed.run", *local, "-m", "work", "train_single", "in", "out"],
        cwd=tmp_path, env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    ).splitlines()  # fmt: skip
    assert lines == ["2 cpu gloo 3 train_single in out"] * 2


def test_shards_learn_what_one_process_learns_and_go_on_exactly(
    alone, encoded, short_generator_folder, tmp_path, killed_at
):
    params = MULTI.model_copy(update=STEPS)

    def run(name):
        s08_train_multi.run(encoded, alone, short_generator_folder, tmp_path / name / "train_multi", params)

    killed_at(None)
    run("alone")
    assert on_two_processes(lambda: run("sharded"), MCPIPE_SHARDING="adapter") == [0, 0]
    assert_same(tmp_path / "alone" / "train_multi", tmp_path / "sharded" / "train_multi")
    killed_at(2)
    assert on_two_processes(lambda: run("killed"), MCPIPE_SHARDING="all") == [9, 9]
    assert list((tmp_path / "killed").rglob("training.pt"))
    killed_at(None)
    assert on_two_processes(lambda: run("killed"), MCPIPE_SHARDING="adapter") == [0, 0]
    sharded, killed = files_of(tmp_path / "sharded" / "train_multi"), files_of(tmp_path / "killed" / "train_multi")
    assert killed == sharded, "a base that is spread, a checkpoint and another layout change no bit"


@NEEDS_BITSANDBYTES
@pytest.mark.parametrize("sharding", ["none", "adapter"])
def test_processes_with_a_base_in_4_bits_each_learn_what_one_process_learns(
    alone, encoded, short_generator_folder, tmp_path, monkeypatch, sharding
):
    monkeypatch.setenv("MCPIPE_QUANTIZE", "nf4")

    def run(name):
        params = MULTI.model_copy(update=STEPS)
        s08_train_multi.run(encoded, alone, short_generator_folder, tmp_path / name / "train_multi", params)

    run("alone")
    assert on_two_processes(lambda: run("two"), MCPIPE_SHARDING=sharding) == [0, 0]
    assert_same(tmp_path / "alone" / "train_multi", tmp_path / "two" / "train_multi")
