"""The page of the study of stage 3, its tables as CSV and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mcpipe.bench.intervals import Interval, mean_interval
from studies.alignment.analysis import (
    SCORES,
    AlignmentPlan,
    AlignmentResult,
    TrainingCurves,
    analyse,
    claims,
    late,
    spread,
)
from studies.alignment.average_face import EXTRA, HONEST, KINDS, MATCHINGS, leads
from studies.alignment.figures import alignment_figure, average_face_figure
from studies.summary import cell, markdown_table, write_csv
from studies.trials import Trial

FIGURE, HACK_FIGURE = "alignment.png", "average_face.png"
DPI = 110
Leads = dict[str, dict[str, Interval]]


def write(plan: AlignmentPlan, commit: str, trials: Sequence[Trial], folder: Path) -> str:
    """Write the page, both figures, both CSV files and the JSON; returns the page."""
    result = analyse(plan, commit, trials)
    lead = leads(result.payments, plan.interval)
    page = markdown(result, lead)
    (folder / "alignment.md").write_text(page, encoding="utf-8")
    (folder / "alignment.json").write_text(json.dumps(as_json(result, lead), indent=1) + "\n", encoding="utf-8")
    result.summary.write_scores(folder / "scores.csv")
    rows = [
        [kind, prompt, int(paid.num_faces[p]), *(f"{paid.rewards[matching][p]:.6f}" for matching in MATCHINGS)]
        for kind, paid in result.payments.items()
        for p, prompt in enumerate(result.summary.prompts)
    ]
    write_csv(folder / "average_face.csv", ["picture", "prompt", "faces", *MATCHINGS], rows)
    alignment_figure(result).savefig(folder / FIGURE, dpi=DPI)
    average_face_figure(result.payments, lead).savefig(folder / HACK_FIGURE, dpi=DPI)
    return page


def as_json(result: AlignmentResult, lead: Leads) -> dict[str, Any]:
    """Every mean, change, curve and lead."""
    summary = result.summary
    return summary.as_json() | {
        "changes": [asdict(change) | {"verdict": change.direction} for change in summary.changes],
        "claims": claims(summary.plan, summary.changes),
        "courses": {
            arm: {name: getattr(curves, name).tolist() for name in ("ratio", "deviation", "clipped", "gain")}
            | {"parts": {name: values.tolist() for name, values in curves.parts.items()}}
            for arm, curves in result.curves.items()
        },
        "average_face": {
            kind: {name: asdict(mean_interval(v.tolist(), summary.plan.interval)) for name, v in paid.rewards.items()}
            for kind, paid in result.payments.items()
        },
        "average_face_leads": {
            kind: {name: asdict(value) for name, value in row.items()} for kind, row in lead.items()
        },
        "stopped": dict(result.stopped),
    }


def markdown(result: AlignmentResult, lead: Leads) -> str:
    """The page."""
    summary, plan = result.summary, result.summary.plan
    verdicts = "\n".join(f"- {claim}: {verdict}" for claim, verdict in claims(plan, summary.changes).items())
    stopped = "; ".join(f"`{name}`: {json.dumps(why)}" for name, why in result.stopped.items())
    return f"""# Stage 3 on the tiny zoo

Every training starts from the adapter of stage 2 at commit {summary.commit[:7]}: {summary.settings}; seeds \
{", ".join(map(str, plan.seeds))}. Scores of the {len(summary.prompts)} prompts of the benchmark, drawn \
{plan.drawings} times by every training, by all arms from the same noise. In brackets 95 % bootstrap intervals over \
seeds and {summary.units}. A subject without a face in the image counts 0. Face-Sim* is by a recogniser \
that no reward was computed with.

{summary.means_table()}

{verdicts}
- trainings ended early: {stopped or "none"}

![Changes, ratios and rewards]({FIGURE})

## Changes

Paired: same seed, same prompt, same noise.

{summary.changes_table(direction=lambda change: change.direction)}

## One ratio per trajectory or per step

Without the first update of each iteration, before which every ratio is 1. A gain is the mean reward of an iteration's \
images above that of the images which stage 2 draws of the same prompts from the same noise, here in the last third of \
the training. +- is the standard deviation over seeds.

{_curves(result)}

The same gain by score; `heldout` is the second recogniser, which rewards nothing:

{_parts(result)}

## The average face

Identity rewards of images in which a face stands for several people, and of collages of the right portraits. Changes \
are against what stage 2 draws of the same pair; the last column is how much larger that change is by row maximum than \
by the Hungarian reward.

{_payments(result, lead)}

![Examples and their rewards]({HACK_FIGURE})
"""


def _curves(result: AlignmentResult) -> str:
    rows = [[result.summary.plan.titles[arm], *_curve_cells(curves)] for arm, curves in result.curves.items()]
    return markdown_table(["", "largest distance of a ratio from 1", "", "clipped", "gain", ""], rows)


def _curve_cells(curves: TrainingCurves) -> list[str]:
    widest, gain = curves.deviation[:, curves.later].mean(1), late(curves.gain)
    several = len(gain) > 1
    return [
        f"{widest.mean():.2e}",
        f"+- {spread(widest):.1e}" * several,
        f"{curves.clipped[:, curves.later].mean():.1%}",
        f"{gain.mean():+.4f}",
        f"+- {spread(gain):.4f}" * several,
    ]


def _parts(result: AlignmentResult) -> str:
    several = len(result.summary.plan.seeds) > 1
    rows = []
    for arm, curves in result.curves.items():
        gains = [late(curves.parts[name]) for name in SCORES]
        cells = [f"{gain.mean():+.4f}" + f" +- {spread(gain):.4f}" * several for gain in gains]
        rows.append([result.summary.plan.titles[arm], *cells])
    return markdown_table(["", *SCORES], rows)


def _payments(result: AlignmentResult, lead: Leads) -> str:
    rows = []
    for kind, paid in result.payments.items():
        cells = [f"{paid.rewards[matching].mean():.3f}" for matching in MATCHINGS]
        if kind != HONEST:
            cells = [f"{text}, change {cell(lead[kind][m], '+')}" for text, m in zip(cells, MATCHINGS, strict=True)]
        extra = "" if kind == HONEST else cell(lead[kind][EXTRA], "+")
        rows.append([KINDS[kind], f"{np.mean(paid.num_faces):.2f}", *cells, extra])
    return markdown_table(["image", "faces", *MATCHINGS, EXTRA], rows)
