"""A run that is killed loses what was in flight and nothing else; the next one ends in the same bytes."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from cheap_work import content, lines, two_stages
from processes import output

NUMBERS = 90
SCRIPT = Path(__file__).parent.parent / "cheap_work.py"


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run that nobody disturbs, inline."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCPIPE_ENGINE", "inline")
        two_stages(folder, NUMBERS)
    return folder


@pytest.mark.parametrize(("engine", "kills"), [("inline", 20), ("pool", 4)])
def test_killed_runs_repeat_nothing_but_what_was_in_flight(calm, tmp_path, monkeypatch, engine, kills):
    monkeypatch.setenv("MCPIPE_ENGINE", engine)
    run = tmp_path / "run"
    killed = int(output([sys.executable, SCRIPT, run, NUMBERS, kills]))
    assert killed >= kills / 2
    for out in ("one", "two"):
        assert content(run / out) == content(calm / out)
    done = Counter(line for line in lines(run) if line != "load")
    needed = Counter(line for line in lines(calm) if line != "load")
    assert done.keys() == needed.keys()
    assert (done - needed).total() <= killed, "every kill costs one worker's item at most"
    assert not list(run.glob(".*.unfinished"))
