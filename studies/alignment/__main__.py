"""Whether stage 3 works, measured: python -m studies.alignment [ADAPTER] [--seeds 0 1 2] [--iterations 20] ...

From one adapter of stage 2: the paper's IPPO, the same with a ratio per step, and no training, each with every seed, by
the stages of the pipeline; and what pictures in which a face stands for several people are paid. Interrupted at any
point, it goes on where it stood; finished, it only writes the page again.
"""

import argparse
import logging
import sys
from pathlib import Path

from mcpipe.core.offline import stay_offline
from mcpipe.core.schemas.benchmark import GeneratedImage
from mcpipe.core.shards import read_shards
from mcpipe.steps.evaluate import EvaluateParams
from mcpipe.train.rl.params import TrainRLParams
from studies.alignment.arms import START, Place, Plan, finish, runs, settle
from studies.alignment.average_face import average_face
from studies.alignment.figures import alignment_figure, average_face_figure
from studies.alignment.outcome import blocks, changes, courses
from studies.alignment.page import FIGURE, HACK_FIGURE, Outcome, write_tables

ROOT = Path.cwd()
DPI = 110

logger = logging.getLogger("alignment")


def main(arguments: list[str] | None = None) -> int:
    """Run what has not been run, then write the outcome; returns the exit status."""
    parser = argparse.ArgumentParser(prog="alignment", description="stage 3, its variants, and its start compared")
    parser.add_argument("adapter", type=Path, nargs="?", default=Path("data/models/train_multi"), help="of stage 2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16, help="per iteration")
    parser.add_argument("--learning-rate", type=float, help="as in params.yaml unless given")
    parser.add_argument("--move-every", type=int, default=3, help="iterations after which the window moves")
    parser.add_argument("--drawings", type=int, default=3, help="of the benchmark, from other noise, by every training")
    parser.add_argument("--out", type=Path, default=Path("data/alignment"), help="folder for the page and the figures")
    parser.add_argument("--work", type=Path, default=Path(".mcpipe/alignment"), help="folder in which runs are kept")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    stay_offline()
    place = Place(ROOT, options.adapter, options.work)
    try:
        own: TrainRLParams = place.settings("train_rl", TrainRLParams)
        plan = Plan(
            seeds=options.seeds,
            iterations=options.iterations,
            prompts=options.prompts,
            learning_rate=options.learning_rate or own.update.learning_rate,
            move_every=options.move_every,
            drawings=options.drawings,
        )
        print(alignment(place, plan, options.out))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def alignment(place: Place, plan: Plan, out: Path) -> str:
    """Run and write; returns the page.

    Raises:
        FileNotFoundError: there is no adapter, or no pairs.
        ValueError: the work folder holds runs of another plan.
    """
    settle(place, plan)
    wanted = runs(place, plan)
    for number, run in enumerate(wanted, 1):
        for step in finish(place, plan, run):
            logger.info("%d of %d: %s %s, seed %d", number, len(wanted), step, run.arm, run.seed)
    interval = place.settings("evaluate", EvaluateParams).interval
    prompts, scores = blocks(wanted)
    start = next(run for run in wanted if run.arm == START)
    drawn = {image.key: image.image for image in read_shards(start.images(0), GeneratedImage)}
    outcome = Outcome(
        plan,
        place.adapter.as_posix(),
        prompts,
        scores,
        changes(scores, interval),
        courses(wanted, place.settings("train_rl", TrainRLParams).rewards.weights),
        average_face(place, drawn),
        {f"{run.arm}-s{run.seed}": stopped for run in wanted if (stopped := run.stopped)},
        interval,
    )
    out.mkdir(parents=True, exist_ok=True)
    alignment_figure(outcome.changes, outcome.courses).savefig(out / FIGURE, dpi=DPI)
    average_face_figure(outcome.paid, outcome.leads).savefig(out / HACK_FIGURE, dpi=DPI)
    return write_tables(outcome, out)


if __name__ == "__main__":
    sys.exit(main())
