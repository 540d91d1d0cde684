"""A run that is killed loses what was in flight and nothing else; the next one ends in the same bytes."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cheap_work import content, two_stages

NUMBERS = 90
SCRIPT = Path(__file__).parent.parent / "cheap_work.py"


@pytest.mark.parametrize(("engine", "kills"), [("inline", 20), ("pool", 4)])
def test_killed_runs_repeat_nothing_but_what_was_in_flight(tmp_path, monkeypatch, engine, kills):
    two_stages(tmp_path / "calm", NUMBERS)
    monkeypatch.setenv("MCPIPE_ENGINE", engine)
    run = tmp_path / "run"
    command = [sys.executable, str(SCRIPT), str(run), str(NUMBERS)]
    moments, killed = random.Random(4), 0
    while killed < kills:
        process = subprocess.Popen(command)
        before = lines(run)
        # Counted from the first sign of work, so that a slow start does not take all the kills.
        while lines(run) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.25))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run(command, check=True)
    assert killed >= kills / 2
    for out in ("one", "two"):
        assert content(run / out) == content(tmp_path / "calm" / out)
    done = Counter(line for line in lines(run) if line != "load")
    needed = Counter(line for line in lines(tmp_path / "calm") if line != "load")
    assert done.keys() == needed.keys()
    assert (done - needed).total() <= killed, "every kill costs one worker's item at most"
    assert not list(run.glob(".*.unfinished"))


def lines(run):
    log = run / "log"
    return log.read_text(encoding="utf-8").split() if log.exists() else []
