"""The paper's ablation in vitro, through DVC's queue: python -m studies.ablation [--plan FILE] [--out FOLDER].

Interrupted at any point, it goes on where it stood; finished, it only writes the table again.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mcpipe.cli.repository import check_repository
from mcpipe.core.offline import stay_offline
from studies.ablation.diagnosis import APART, apart, over_seeds, read_diagnosis, read_rows
from studies.ablation.outcome import Outcome, scores_of, write_outcome
from studies.ablation.plan import preparation, read_plan, trials
from studies.ablation.repository import Repository
from studies.ablation.runner import StageCounts, Study

ROOT = Path.cwd()
HERE = Path(__file__).parent
POLL_S = 20.0

logger = logging.getLogger("ablation")


def main(arguments: list[str] | None = None) -> int:
    """Run what has not been run, then write the outcome; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ablation", description="the paper's ablation through DVC's queue")
    parser.add_argument("--plan", type=Path, default=HERE / "arms.yaml", help="arms, seeds and steps")
    parser.add_argument("--out", type=Path, default=Path("data/ablation"), help="folder for the table and the figure")
    parser.add_argument("--poll", type=float, default=POLL_S, help="seconds between two looks at the queue")
    options = parser.parse_args(arguments)
    stay_offline()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(ablation(options.plan, options.out, options.poll))
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("DVC's workers go on; `dvc queue stop --kill` ends them. Run this again to pick up.", file=sys.stderr)
        return 130
    return 0


def ablation(plan_file: Path, out: Path, poll_s: float) -> str:
    """Run and write; returns the Markdown.

    Raises:
        FileNotFoundError: this is no git repository, or there is no plan.
        ValueError: the plan is wrong, there are changes that no commit holds, or the commit's results are not here.
        RuntimeError: an experiment failed again and again.
    """
    plan = read_plan(plan_file)
    check_repository(ROOT)
    repository = Repository(ROOT, plan.jobs)
    if changed := repository.uncommitted(besides=out):
        raise ValueError(f"commit or stash first, so that the experiments belong to a commit:\n{changed}")
    if missing := repository.missing():  # DVC looks at the metrics of every stage when an experiment ends
        raise ValueError(
            f"run `dvc repro` or `dvc pull` first: {missing[0]} and {len(missing) - 1} more are not in the cache"
        )
    say, wanted = progress(), trials(plan)
    # One job computes by itself but once what all share; several would do so side by side.
    shared = Study(repository, [preparation(plan)] if plan.jobs > 1 else [])
    study = Study(repository, wanted)
    shared.run(say, poll_s)
    commits = study.run(say, poll_s)
    tables = [read_rows(ROOT, trial, commits[trial.name]) for trial in wanted]
    prompts, scores = scores_of(wanted, tables)
    counts = StageCounts()
    for part in (shared, study):
        part.count_stages(counts, poll_s)
    diagnosis = {APART: over_seeds(wanted, list(map(apart, tables)))} | read_diagnosis(ROOT, plan, wanted, commits)
    return write_outcome(Outcome(plan, repository.commit(), prompts, scores, counts, diagnosis), out)


def progress() -> Callable[[dict[str, str]], None]:
    """Says in one line how many experiments are where."""
    start = time.monotonic()

    def say(state: dict[str, str]) -> None:
        count = Counter(status.lower() for status in state.values())
        running = sorted(name for name, status in state.items() if status == "Running")
        told = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        logger.info(
            "%3.0f min: %s%s", (time.monotonic() - start) / 60, told, f" ({', '.join(running)})" * bool(running)
        )

    return say


if __name__ == "__main__":
    sys.exit(main())
