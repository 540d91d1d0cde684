"""A run that is killed loses what was in flight and nothing else; the next one ends in the same bytes."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from cheap_work import content, lines, two_stages
from processes import output

NUMBERS = 90
SCRIPT = Path(__file__).parent.parent / "cheap_work.py"


@pytest.mark.parametrize(("engine", "kills"), [("inline", 20), ("pool", 4)])
def test_killed_runs_repeat_nothing_but_what_was_in_flight(tmp_path, monkeypatch, engine, kills):
    two_stages(tmp_path / "calm", NUMBERS)
    monkeypatch.setenv("MCPIPE_ENGINE", engine)
    run = tmp_path / "run"
    killed = int(output([sys.executable, SCRIPT, run, NUMBERS, kills]))
    assert killed >= kills / 2
    for out in ("one", "two"):
        assert content(run / out) == content(tmp_path / "calm" / out)
    done = Counter(line for line in lines(run) if line != "load")
    needed = Counter(line for line in lines(tmp_path / "calm") if line != "load")
    assert done.keys() == needed.keys()
    assert (done - needed).total() <= killed, "every kill costs one worker's item at most"
    assert not list(run.glob(".*.unfinished"))
