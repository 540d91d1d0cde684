"""The command line that all studies share: run a plan's experiments, then write the analysis of their results."""

import argparse
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic

from mcpipe.cli.repository import check_repository
from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import check_params
from studies.plan import Experiment, P, experiments, read_plan
from studies.repository import Repository
from studies.runner import run_experiments
from studies.trials import Trial

PROBLEM, INTERRUPTED = 1, 130
"""Exit statuses."""


@dataclass(frozen=True)
class Analysis(Generic[P]):
    """A kind of plan and its analysis."""

    name: str
    description: str
    plan: type[P]
    paths: Callable[[P, Experiment], Sequence[str]]
    """The files and folders of an experiment that the analysis reads."""
    write: Callable[[P, str, Sequence[Trial], Path], str]
    """Writes tables and figures of the trials of a commit into a folder; returns the page."""
    extend: Callable[[P, Sequence[Trial], Path], tuple[P, Sequence[Trial]]] = lambda plan, trials, _: (plan, trials)
    """The plan and the trials with rows that no experiment makes; their files go to a folder."""


def main(analysis: Analysis[P], home: Path, arguments: Sequence[str] | None = None) -> int:
    """Run a study whose own plan lies in ``home``; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{analysis.name}", description=analysis.description)
    parser.add_argument("--plan", type=Path, default=home / "plan.yaml", help="arms, seeds and settings")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds instead of the plan's")
    parser.add_argument("--out", type=Path, default=Path("data", analysis.name), help="folder for tables and figures")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("studies").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stay_offline()
    try:
        print(run_study(analysis, options.plan, options.seeds, options.out))
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def run_study(analysis: Analysis[P], plan_file: Path, seeds: Sequence[int] | None, out: Path) -> str:
    """Run experiments without a result, then write tables and figures into ``out``; returns the page.

    Raises:
        FileNotFoundError: the current folder is not a git repository.
        ValueError: the plan or the checkout is not fit; see `studies.runner.run_experiments`.
        RuntimeError: an experiment failed.
    """
    plan = read_plan(plan_file, analysis.plan)
    if seeds:
        plan = check_params(plan.model_dump() | {"seeds": list(seeds)}, analysis.plan)
    check_repository(Path.cwd())
    repository, planned = Repository(Path.cwd()), experiments(plan)
    results = run_experiments(repository, planned, [plan_file, out])
    with TemporaryDirectory() as place:
        trials = [Trial(experiment, Path(place, experiment.name)) for experiment in planned]
        for trial, result in zip(trials, results, strict=True):
            repository.export(result.commit, analysis.paths(plan, trial.experiment), trial.folder)
        plan, trials = analysis.extend(plan, trials, Path(place))
        written = Path(place, "analysis")
        written.mkdir()
        page = analysis.write(plan, repository.commit(), trials, written)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(written.iterdir()):
            shutil.copy(file, out)
    return page
