"""The page, tables and figure of an ablation."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mcpipe.bench.tables import LABELS
from mcpipe.report.ablation import SeedRange
from mcpipe.report.published import ABLATION
from studies.ablation.analysis import AblationPlan, Diagnoses, diagnoses, summary, tally
from studies.ablation.images import images
from studies.summary import Summary, markdown_table
from studies.trials import Trial

FIGURE, IMAGES = "ablation.png", "images.jpg"
COLUMNS_OF_PANELS = 3
SIDE_BY_SIDE = "The first prompts of the benchmark: references, then the image of every arm with the first seed"


def write(plan: AblationPlan, commit: str, trials: Sequence[Trial], folder: Path) -> str:
    """Write the page, tables and figures; returns the page."""
    result, figures = summary(plan, commit, trials), diagnoses(plan, trials)
    page = markdown(result, figures)
    (folder / "ablation.md").write_text(page, encoding="utf-8")
    content = result.as_json() | {
        "changes": [asdict(change) | {"verdict": change.verdict} for change in result.changes],
        "verdicts": tally(result.changes),
        "diagnosis": {title: {arm: asdict(values) for arm, values in row.items()} for title, row in figures.items()},
    }
    (folder / "ablation.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    result.write_scores(folder / "scores.csv")
    figure(result).savefig(folder / FIGURE, dpi=110)
    if plan.num_shown:
        images(plan, trials, plan.num_shown).save(folder / IMAGES, quality=90)
    return page


def markdown(result: Summary[AblationPlan], figures: Diagnoses) -> str:
    """The page: means, changes beside the paper's, figures of the trainings."""
    plan, verdicts = result.plan, tally(result.changes)
    changes = result.changes_table(
        paper=lambda change: "" if change.published is None else f"{change.published:+.4f}",
        verdict=lambda change: change.verdict,
        why=lambda change: change.reason,
    )
    titles = ", ".join(plan.titles.values())
    sheet = f"![{SIDE_BY_SIDE}]({IMAGES})\n\n*{SIDE_BY_SIDE}: {titles}.*\n\n" if plan.num_shown else ""
    rows = [[title, *(_range(row.get(arm)) for arm in result.means)] for title, row in figures.items()]
    return f"""# Ablation in vitro

The arms of {ABLATION.source} on the tiny zoo, by `python -m studies.ablation` with the plan `{plan.name}` at commit \
{result.commit[:7]}: {len(plan.seeds)} seeds, {len(result.prompts)} prompts; {result.settings}. \
In brackets 95 % bootstrap intervals over seeds and {result.units}. A subject without a face in the image counts 0. \
Higher is better, but of leaks and duplicates, for which lower is.

{result.means_table()}

![Means of every arm with intervals]({FIGURE})

{sheet}## Which orderings of the paper come out

Of {sum(verdicts.values())} published changes, {verdicts["comes out"]} come out, {verdicts["undecided"]} are undecided \
(zero lies in the interval), {verdicts["reversed"]} are reversed. Changes are paired: same seed, same prompt, same \
noise. The paper's changes are of another model on photographs; their directions are compared, not their sizes.

{changes}

## Figures of the trainings

Means over seeds, in brackets the lowest and the highest value: whether a part does its own work, also where scores do \
not move.

{markdown_table(["figure", *(plan.titles[arm] for arm in result.means)], rows)}
"""


def figure(result: Summary[AblationPlan]) -> Figure:
    """A panel per metric: every arm's mean and interval, and the mean of every seed."""
    metrics = result.metrics
    height = -(-len(metrics) // COLUMNS_OF_PANELS)
    sheet = Figure(figsize=(3.6 * COLUMNS_OF_PANELS, 2.4 * height + 0.4), layout="constrained")
    panels = sheet.subplots(height, COLUMNS_OF_PANELS, squeeze=False, sharey=True).flat
    places = np.arange(len(result.means))
    for metric, panel in zip(metrics, panels, strict=False):  # metrics come first, so that no panel is lost
        intervals = [row[metric] for row in result.means.values()]
        values = np.array([interval.value for interval in intervals])
        reach = [values - [interval.low for interval in intervals], [i.high for i in intervals] - values]
        panel.errorbar(values, places, xerr=np.abs(reach), fmt="o", color="#3a7cbe", capsize=3)
        for place, arm in zip(places, result.means, strict=True):
            seeds = result.scores[arm][metric].mean(axis=1)
            panel.plot(seeds, [place] * len(seeds), "|", color="#de8034")
        panel.set_title(LABELS[metric], fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.set_yticks(places, [result.plan.titles[arm] for arm in result.means])
    for panel in list(panels):
        panel.set_axis_off()
    sheet.axes[0].invert_yaxis()
    sheet.suptitle(f"Means with 95 % intervals over seeds and {result.units}; bars: single seeds", fontsize=10)
    return sheet


def _range(values: SeedRange | None) -> str:
    return f"{values.value:.3g} [{values.low:.3g}, {values.high:.3g}]" if values else ""
