"""The paper's ablation in vitro, through DVC's queue: python -m benchmarks.ablation [--plan FILE] [--out FOLDER].

Interrupted at any point, it goes on where it stood; finished, it only writes the table again.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.ablation.outcome import Outcome, read_scores, write_outcome
from benchmarks.ablation.plan import experiments, read_plan
from benchmarks.ablation.repository import Repository
from benchmarks.ablation.runner import Study

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
        ValueError: the plan is wrong, or there are changes that no commit holds.
        RuntimeError: an experiment failed again and again.
    """
    plan = read_plan(plan_file)
    repository = Repository(ROOT, plan.jobs)
    if changed := repository.uncommitted(besides=out):
        raise ValueError(f"commit or stash first, so that the experiments belong to a commit:\n{changed}")
    wanted = experiments(plan)
    study = Study(repository, wanted)
    commits = study.run(progress(), poll_s)
    prompts, scores = read_scores(ROOT, wanted, commits)
    return write_outcome(Outcome(plan, repository.commit(), prompts, scores, study.stage_counts()), out)


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
