"""The page of the comparison, its tables as CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcpipe.bench.intervals import Interval, IntervalParams, mean_interval
from mcpipe.bench.tables import LABELS
from studies.ablation.table import block_interval
from studies.alignment.arms import CHANGES, GRPO, IPPO, START, TITLES, Plan
from studies.alignment.average_face import EXTRA, HONEST, KINDS, MATCHINGS, Paid, leads
from studies.alignment.outcome import METRICS, SCORES, Block, Change, Course, claims, late, spread

FIGURE, HACK_FIGURE = "alignment.png", "average_face.png"


@dataclass(frozen=True)
class Outcome:
    """All that was measured."""

    plan: Plan
    adapter: str
    prompts: Sequence[str]
    scores: Mapping[str, Mapping[str, Block]]
    changes: Sequence[Change]
    courses: Mapping[str, Course]
    paid: Mapping[str, Paid]
    stopped: Mapping[str, Mapping[str, Any]]
    """By run, of those that the watch gave up."""
    interval: IntervalParams

    @property
    def leads(self) -> dict[str, dict[str, Interval]]:
        """Leads of dishonest pictures over honest ones."""
        return leads(self.paid, self.interval)


def write_tables(outcome: Outcome, folder: Path) -> str:
    """Write the page, both CSV files and the JSON; returns the page."""
    text = markdown(outcome)
    (folder / "alignment.md").write_text(text, encoding="utf-8")
    (folder / "alignment.json").write_text(json.dumps(as_json(outcome), indent=1) + "\n", encoding="utf-8")
    seeds, prompts = outcome.plan.seeds, outcome.prompts
    scores = [
        [arm, seed, prompt, *(f"{block[metric][s, p]:.6f}" for metric in METRICS)]
        for arm, block in outcome.scores.items()
        for s, seed in enumerate(seeds)
        for p, prompt in enumerate(prompts)
    ]
    _write_csv(folder / "scores.csv", ["arm", "seed", "prompt", *METRICS], scores)
    paid = [
        [kind, prompt, int(one.num_faces[p]), *(f"{one.rewards[matching][p]:.6f}" for matching in MATCHINGS)]
        for kind, one in outcome.paid.items()
        for p, prompt in enumerate(prompts)
    ]
    _write_csv(folder / "average_face.csv", ["picture", "prompt", "faces", *MATCHINGS], paid)
    return text


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Every mean, change, curve and lead."""
    return {
        "adapter": outcome.adapter,
        "plan": outcome.plan.model_dump(),
        "arms": {arm: CHANGES[arm] for arm in CHANGES if arm != START},
        "prompts": len(outcome.prompts),
        "means": {
            arm: {metric: asdict(block_interval(block, outcome.interval)) for metric, block in blocks.items()}
            for arm, blocks in outcome.scores.items()
        },
        "changes": [asdict(change) | {"verdict": change.verdict} for change in outcome.changes],
        "claims": claims(outcome.changes),
        "courses": {
            arm: {name: getattr(course, name).tolist() for name in ("ratio", "deviation", "clipped", "gain")}
            | {"parts": {name: values.tolist() for name, values in course.parts.items()}}
            for arm, course in outcome.courses.items()
        },
        "average_face": {
            kind: {
                name: asdict(mean_interval(values.tolist(), outcome.interval)) for name, values in one.rewards.items()
            }
            for kind, one in outcome.paid.items()
        },
        "average_face_leads": {
            kind: {name: asdict(interval) for name, interval in lead.items()} for kind, lead in outcome.leads.items()
        },
        "stopped": dict(outcome.stopped),
    }


def markdown(outcome: Outcome) -> str:
    """The page."""
    stopped = [
        f"`{name}` before iteration {why['iteration']}: {why['reason']}" for name, why in outcome.stopped.items()
    ]
    return "\n".join(
        [
            "# Stage 3 on the tiny zoo",
            "",
            _introduction(outcome),
            "",
            *_table(["", *(LABELS[metric] for metric in METRICS)], _means(outcome)),
            "",
            *(f"- {claim}: {verdict}" for claim, verdict in claims(outcome.changes).items()),
            f"- given up by the watch: {'; '.join(stopped) if stopped else 'none'}",
            "",
            f"![Changes, ratios and rewards]({FIGURE})",
            "",
            "## Changes",
            "",
            "Paired: same seed, same prompt, same noise.",
            "",
            *_table(["from", "to", "metric", "change", ""], _changes(outcome)),
            "",
            "## One ratio per trajectory or per step",
            "",
            "Without the first update of each iteration, before which every ratio is 1. A gain is the mean reward of "
            "an iteration's pictures above that of the pictures which stage 2 draws of the same prompts "
            "from the same noise, here in the last third of the training. +- is the standard deviation over seeds.",
            "",
            *_table(["", "largest distance of a ratio from 1", "", "clipped", "gain", ""], _courses(outcome)),
            "",
            "The same gain by reward, with the second recogniser, which rewards nothing:",
            "",
            *_table(["", *SCORES], _parts(outcome)),
            "",
            "## The average face",
            "",
            "Identity rewards of pictures in which a face stands for several people, and of collages of the right "
            "portraits. In brackets how much more than for what stage 2 draws of the same pair; last, by how much that "
            "is more by row maximum than by the Hungarian reward.",
            "",
            *_table(["picture", "faces", *MATCHINGS, EXTRA], _paid(outcome)),
            "",
            f"![Examples and what they are paid]({HACK_FIGURE})",
            "",
        ]
    )  # fmt: skip


def _introduction(outcome: Outcome) -> str:
    plan = outcome.plan
    return (
        f"Every training starts from one adapter of stage 2 (`{outcome.adapter}`): {plan.iterations} iterations of "
        f"{plan.prompts} prompts, learning rate {plan.learning_rate:g}, window moved every {plan.move_every}, seeds "
        f"{', '.join(map(str, plan.seeds))}; the rest as in params.yaml. Scores of the {len(outcome.prompts)} prompts "
        f"of the benchmark, drawn {plan.drawings} times by every training, by all arms from the same noise. In "
        "brackets 95 % bootstrap intervals over seeds and prompts. A subject without a face in the picture counts 0. "
        "Face-Sim* is by a recogniser that no reward was computed with."
    )


def _means(outcome: Outcome) -> list[list[str]]:
    return [
        [TITLES[arm], *(_cell(block_interval(blocks[metric], outcome.interval)) for metric in METRICS)]
        for arm, blocks in outcome.scores.items()
    ]


def _changes(outcome: Outcome) -> list[list[str]]:
    return [[one.before, one.after, LABELS[one.metric], _cell(one.change, "+"), one.verdict] for one in outcome.changes]


def _courses(outcome: Outcome) -> list[list[str]]:
    rows, several = [], len(outcome.plan.seeds) > 1
    for arm in (IPPO, GRPO):
        course = outcome.courses[arm]
        widest, gain = course.deviation[:, course.later].mean(1), late(course.gain)
        rows.append(
            [
                TITLES[arm],
                f"{widest.mean():.2e}",
                f"+- {spread(widest):.1e}" * several,
                f"{course.clipped[:, course.later].mean():.1%}",
                f"{gain.mean():+.4f}",
                f"+- {spread(gain):.4f}" * several,
            ]
        )
    return rows


def _parts(outcome: Outcome) -> list[list[str]]:
    several = len(outcome.plan.seeds) > 1
    rows = []
    for arm, course in outcome.courses.items():
        gains = [late(course.parts[name]) for name in SCORES]
        rows.append([TITLES[arm], *(f"{gain.mean():+.4f}" + f" +- {spread(gain):.4f}" * several for gain in gains)])
    return rows


def _paid(outcome: Outcome) -> list[list[str]]:
    rows = []
    for kind, one in outcome.paid.items():
        cells = [f"{one.rewards[matching].mean():.3f}" for matching in MATCHINGS]
        if kind != HONEST:
            lead = outcome.leads[kind]
            cells = [f"{cell} [{_cell(lead[m], '+')}]" for cell, m in zip(cells, MATCHINGS, strict=True)]
            cells.append(f"[{_cell(lead[EXTRA], '+')}]")
        else:
            cells.append("")
        rows.append([KINDS[kind], f"{np.mean(one.num_faces):.2f}", *cells])
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.3f} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"


def _write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([header, *rows])
    file.write_text(lines.getvalue(), encoding="utf-8")
