"""Independent jobs in several processes."""

import os
from dataclasses import dataclass

import pytest

from mcpipe.execution.parallel import mapped, num_processes


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and says which process did it."""

    broken: bool = False

    def load(self):
        if self.broken:
            raise FileNotFoundError("no weights in models/squares")
        return square


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number**2, os.getpid()


def test_results_come_in_order_from_one_process_or_from_several():
    numbers = list(range(6))
    here, there = (list(mapped(Squares(), numbers, workers)) for workers in (1, 2))
    assert [value for value, _ in here] == [value for value, _ in there] == [0, 1, 4, 9, 16, 25]
    assert {process for _, process in here} == {os.getpid()}
    assert os.getpid() not in {process for _, process in there}


def test_errors_of_loading_and_of_jobs_reach_the_caller():
    for workers in (1, 2):
        with pytest.raises(FileNotFoundError, match="no weights in models/squares"):
            list(mapped(Squares(broken=True), [1], workers))
        with pytest.raises(ValueError, match="-1 is negative"):
            list(mapped(Squares(), [1, -1], workers))


def test_the_number_of_processes_is_that_of_the_environment_or_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("MCPIPE_WORKERS", "3")
    assert (num_processes(tmp_path, 8), num_processes(tmp_path, 2)) == (3, 2)
    for nonsense in ("0", "-1", "1.5", "all"):
        monkeypatch.setenv("MCPIPE_WORKERS", nonsense)
        with pytest.raises(ValueError, match=f"MCPIPE_WORKERS should be a positive whole number, not '{nonsense}'"):
            num_processes(tmp_path, 8)
    monkeypatch.delenv("MCPIPE_WORKERS")
    cores = len(os.sched_getaffinity(0))
    assert num_processes(tmp_path, 1000) == cores
    (tmp_path / "weights").touch()
    os.truncate(tmp_path / "weights", 1 << 43)
    assert num_processes(tmp_path, 1000) == 1, "eight terabytes fit into no memory"
