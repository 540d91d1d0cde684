"""What the ablation leaves: scores as CSV, claims as JSON, both as Markdown, and one figure."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import LABELS, METRICS
from mcpipe.report.ablation import Change, Measured
from mcpipe.report.published import ABLATION
from studies.ablation.diagnosis import Diagnoses, Rows
from studies.ablation.plan import Plan, Trial
from studies.ablation.runner import StageCounts
from studies.ablation.table import Block, Scores, changes, means, tally

EXTENSION = {"csv": "scores.csv", "json": "ablation.json", "md": "ablation.md", "png": "ablation.png"}
COLUMNS_OF_PANELS = 3


@dataclass(frozen=True)
class Outcome:
    """The finished ablation."""

    plan: Plan
    commit: str
    prompts: Sequence[str]
    scores: Scores
    counts: StageCounts
    diagnosis: Diagnoses


def scores_of(trials: Sequence[Trial], tables: Sequence[Rows]) -> tuple[list[str], Scores]:
    """The keys of the prompts, and the scores of all trials on them.

    Raises:
        ValueError: trials answered different prompts.
    """
    prompts = sorted(tables[0])
    for trial, rows in zip(trials, tables, strict=True):
        if sorted(rows) != prompts:
            raise ValueError(f"{trial.name} answered other prompts than {trials[0].name}; do arms differ in pairs.*?")
    metrics = [metric for metric in METRICS if all(metric in row for rows in tables for row in rows.values())]
    scores: dict[str, dict[str, Block]] = {}
    for arm in dict.fromkeys(trial.arm.name for trial in trials):
        seeds = [rows for trial, rows in zip(trials, tables, strict=True) if trial.arm.name == arm]
        scores[arm] = {m: np.array([[float(rows[key][m]) for key in prompts] for rows in seeds]) for m in metrics}
    return prompts, scores


def write_outcome(outcome: Outcome, folder: Path) -> str:
    """Write all four files; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    found = changes(outcome.scores, outcome.plan)
    text = markdown(outcome, found)
    (folder / EXTENSION["md"]).write_text(text, encoding="utf-8")
    (folder / EXTENSION["csv"]).write_text(as_csv(outcome), encoding="utf-8")
    (folder / EXTENSION["json"]).write_text(as_json(outcome, found), encoding="utf-8")
    figure(outcome).savefig(folder / EXTENSION["png"], dpi=110)
    return text


def as_csv(outcome: Outcome) -> str:
    """One line per arm, seed and prompt."""
    metrics = list(next(iter(outcome.scores.values())))
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["arm", "seed", "prompt", *metrics])
    for arm, blocks in outcome.scores.items():
        for s, seed in enumerate(outcome.plan.seeds):
            for p, prompt in enumerate(outcome.prompts):
                writer.writerow([arm, seed, prompt, *(f"{blocks[metric][s, p]:.6f}" for metric in metrics)])
    return lines.getvalue()


def as_json(outcome: Outcome, found: Sequence[Change]) -> str:
    """Every mean and every change with its interval, and how the work was shared."""
    content = {
        "commit": outcome.commit,
        "plan": outcome.plan.model_dump(),
        "prompts": len(outcome.prompts),
        "means": {
            arm: {metric: asdict(interval) for metric, interval in row.items()}
            for arm, row in means(outcome.scores, outcome.plan.interval).items()
        },
        "changes": [asdict(change) | {"verdict": change.verdict} for change in found],
        "verdicts": tally(found),
        "diagnosis": {
            title: {arm: asdict(measured) for arm, measured in arms.items()}
            for title, arms in outcome.diagnosis.items()
        },
        "stages": {"ran": dict(outcome.counts.ran), "restored": dict(outcome.counts.restored)},
    }
    return json.dumps(content, indent=1) + "\n"


def markdown(outcome: Outcome, found: Sequence[Change]) -> str:
    """The table, the orderings and the shared work."""
    plan = outcome.plan
    steps = ", ".join(f"`{key}` {value}" for key, value in plan.settings.items())
    verdicts = tally(found)
    return "\n".join(
        [
            "# Ablation in vitro",
            "",
            f"The arms of {ABLATION.source} on the tiny zoo, by `make ablation` at commit {outcome.commit[:7]}: "
            f"{len(plan.seeds)} seeds, {len(outcome.prompts)} prompts; {steps}. In brackets 95 % bootstrap intervals "
            "over seeds and prompts. A subject without a face in the picture counts 0. Higher is better.",
            "",
            *_arm_table(outcome),
            "",
            f"![Means of every arm with intervals]({EXTENSION['png']})",
            "",
            "## Which orderings of the paper come out",
            "",
            f"Of {sum(verdicts.values())} published steps, {verdicts['comes out']} come out, {verdicts['undecided']} "
            f"are undecided (zero lies in the interval of the change), {verdicts['reversed']} are reversed. Changes "
            "are paired: same seed, same prompt, same noise. The paper's changes are of another model on photographs; "
            "their directions are compared, not their sizes.",
            "",
            *_change_table(outcome, found),
            "",
            "## What the trainings say of themselves",
            "",
            "Means over seeds, in brackets the least and the greatest: whether a part does its own work, also where "
            "scores do not move.",
            "",
            *_diagnosis_table(outcome),
            "",
            "## What was computed",
            "",
            *_count_table(outcome.counts),
            "",
        ]
    )


def figure(outcome: Outcome) -> Figure:
    """One panel per metric: every arm's mean and interval, and the mean of every seed."""
    rows = means(outcome.scores, outcome.plan.interval)
    metrics = list(next(iter(rows.values())))
    height = -(-len(metrics) // COLUMNS_OF_PANELS)
    sheet = Figure(figsize=(3.6 * COLUMNS_OF_PANELS, 2.4 * height + 0.4), layout="constrained")
    panels = sheet.subplots(height, COLUMNS_OF_PANELS, squeeze=False, sharey=True).flat
    places = np.arange(len(rows))
    for metric, panel in zip(metrics, panels, strict=False):  # what runs out first comes first: no panel is lost
        intervals = [rows[arm][metric] for arm in rows]
        values = np.array([interval.value for interval in intervals])
        reach = [values - [interval.low for interval in intervals], [i.high for i in intervals] - values]
        panel.errorbar(values, places, xerr=np.abs(reach), fmt="o", color="#3a7cbe", capsize=3)
        for place, arm in zip(places, rows, strict=True):
            panel.plot(
                outcome.scores[arm][metric].mean(axis=1), [place] * len(outcome.plan.seeds), "|", color="#de8034"
            )
        panel.set_title(LABELS[metric], fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.set_yticks(places, [arm.title for arm in outcome.plan.arms])
    for panel in list(panels):
        panel.set_axis_off()
    sheet.axes[0].invert_yaxis()
    sheet.suptitle("Means with 95 % intervals over seeds and prompts; bars: single seeds", fontsize=10)
    return sheet


def _arm_table(outcome: Outcome) -> list[str]:
    rows = means(outcome.scores, outcome.plan.interval)
    metrics = list(next(iter(rows.values())))
    titles = {arm.name: arm.title for arm in outcome.plan.arms}
    return [
        f"| arm | {' | '.join(LABELS[metric] for metric in metrics)} |",
        f"|---|{'---|' * len(metrics)}",
        *(f"| {titles[arm]} | {' | '.join(_cell(rows[arm][metric]) for metric in metrics)} |" for arm in rows),
    ]


def _change_table(outcome: Outcome, found: Sequence[Change]) -> list[str]:
    titles = {arm.name: arm.title for arm in outcome.plan.arms}
    lines = ["| from | to | metric | change | paper | verdict | why |", "|---|---|---|---|---|---|---|"]
    for change in found:
        paper = "" if change.published is None else f"{change.published:+.4f}"
        names = f"{titles[change.before]} | {titles[change.after]} | {LABELS[change.metric]}"
        lines.append(f"| {names} | {_cell(change.change, '+')} | {paper} | {change.verdict} | {change.reason} |")
    return lines


def _diagnosis_table(outcome: Outcome) -> list[str]:
    arms = outcome.plan.arms
    return [
        f"| figure | {' | '.join(arm.title for arm in arms)} |",
        f"|---|{'---|' * len(arms)}",
        *(
            f"| {title} | {' | '.join(_measured(measured.get(arm.name)) for arm in arms)} |"
            for title, measured in outcome.diagnosis.items()
        ),
    ]


def _count_table(counts: StageCounts) -> list[str]:
    ran, restored = counts.ran.total(), counts.restored.total()
    names = dict.fromkeys([*counts.restored, *counts.ran])
    return [
        f"By DVC's logs, {ran} of {ran + restored} stage results were computed; {restored} were there already, from "
        "the commit or from the run-cache.",
        "",
        "| stage | computed | reused |",
        "|---|---|---|",
        *(f"| {name} | {counts.ran[name]} | {counts.restored[name]} |" for name in names),
    ]


def _cell(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _measured(told: Measured | None) -> str:
    return f"{told.value:.3g} [{told.low:.3g}, {told.high:.3g}]" if told else ""
