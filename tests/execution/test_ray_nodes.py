"""Two nodes of Ray on one machine write the bytes of one process, also when one of them is killed on the way.

`make test-cluster` installs Ray and runs this; without Ray it is skipped.
"""

import os
import time
from pathlib import Path
from threading import Thread

import pytest
from cheap_work import CheapParams, Number, Placed, content, write
from imports import ROOT
from processes import PATIENCE_S

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed; `make test-cluster` installs it")

NUMBERS = [Number(f"n{i:03d}", i) for i in range(96)]
KILL_AFTER = 24
"""Numbers that are done when the node is killed."""


def lines(file):
    file = Path(file)
    return file.read_text(encoding="utf-8").split() if file.exists() else []


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes with a processor each; what runs on them finds the modules of this checkout."""
    import ray

    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no question to a cloud
    monkeypatch.setenv("no_proxy", "localhost")
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes, other
    ray.shutdown()
    nodes.shutdown()


def kill_on_the_way(nodes, other, log, done):
    deadline = time.monotonic() + PATIENCE_S
    while len(lines(log)) < KILL_AFTER and time.monotonic() < deadline:
        time.sleep(0.02)
    nodes.remove_node(other, allow_graceful=False)
    done.append(len(lines(log)))


@pytest.mark.parametrize("kill", [False, True])
def test_two_nodes_write_the_bytes_of_one_process_although_one_is_killed(cluster, tmp_path, monkeypatch, kill):
    nodes, other = cluster
    model = tmp_path / "model"
    model.write_text("weights", encoding="utf-8")
    alone, spread = (
        Placed(CheapParams(factor=3, records_per_shard=16), model, str(tmp_path / name), seconds)
        for name, seconds in (("alone", 0.0), ("spread", 0.05))
    )
    monkeypatch.setenv("MCPIPE_ENGINE", "inline")
    write(alone, NUMBERS, tmp_path / "a" / "out")
    monkeypatch.setenv("MCPIPE_ENGINE", "ray")
    monkeypatch.setenv("MCPIPE_WORKERS", "2")
    places, done_at_kill = f"{spread.log}.nodes", []
    killer = Thread(target=kill_on_the_way, args=(nodes, other, places, done_at_kill))
    if kill:
        killer.start()
    report = write(spread, NUMBERS, tmp_path / "b" / "out")
    if kill:
        killer.join(PATIENCE_S)
        assert KILL_AFTER <= done_at_kill[0] < len(NUMBERS), "one node died on the way"
        assert other not in nodes.worker_nodes
    assert content(tmp_path / "a" / "out") == content(tmp_path / "b" / "out")
    assert len(report.kept) + len(report.rejections) == len(NUMBERS)
    assert len(set(lines(places)) - {"none"}) == 2, "both nodes worked"
    assert set(lines(spread.log)) == {"load", *(number.key for number in NUMBERS)}
    if not kill:
        assert len(lines(places)) == len(NUMBERS), "nothing was done twice"
