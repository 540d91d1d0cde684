"""The table of one kind of subjects, and the funnel of its synthetic data above it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.preference_table import Rows, read_rows
from mcpipe.bench.psr_table import COPIES, PEOPLE, THINGS, SeedsTable, with_copies
from mcpipe.core.params import Params
from mcpipe.core.records import JSON
from mcpipe.core.report import read_report
from mcpipe.core.shards import whole_folder
from psr.arms import ARMS, COMPARED

METRICS = {"things": THINGS, "people": PEOPLE}
SCORES = "scores"
"""Folder with the scores of every arm and seed; that with copies of references is called `COPIES`."""


class TableParams(Params):
    """Settings of the table."""

    interval: IntervalParams


def run(  # noqa: PLR0913  one argument per path
    texts: Path, targets: Path, synthetic: Path, samples: Path, results: Path, table: Path, params: TableParams
) -> None:  # fmt: skip
    """Write ``table.txt``, ``table.json`` and ``funnel.json`` of the kind that the output's name says.

    Raises:
        FileNotFoundError: a stage or an arm has no results.
        ValueError: arms answer different prompts.
    """
    kind, steps = table.name, {"texts": texts, "targets": targets, "synthetic": synthetic, "samples": samples}
    reports = {name: read_report(step) for name, step in steps.items()}
    funnel = {name: funnel_of(report) for name, report in reports.items()}
    arms = {arm: seeds_of(results, arm) for arm in ARMS[kind]}
    compared = SeedsTable(arms, COMPARED[kind], METRICS[kind], params.interval)
    lines = [f"synthetic {kind}"]
    lines += [
        f"  {name:<10}{each['kept']} of {each['seen']}; dropped {each['dropped']}" for name, each in funnel.items()
    ]
    lines += [
        f"  edits in {name}: {each['edited']}; refused {each['edit_refused']}"
        for name, each in funnel.items()
        if "edited" in each
    ]
    lines += ["", *compared.as_lines(), ""]
    with whole_folder(table) as folder:
        (folder / "table.txt").write_text("\n".join(lines), encoding="utf-8")
        for name, content in (("table", compared.as_json()), ("funnel", funnel)):
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def funnel_of(report: Mapping[str, JSON]) -> dict[str, JSON]:
    """What a stage saw, kept and dropped, and what became of edits if any were asked for."""
    facts = report["facts"] if isinstance(report["facts"], dict) else {}
    edits = {key: facts[key] for key in ("edited", "edit_refused") if key in facts}
    return {key: report[key] for key in ("seen", "kept", "dropped")} | edits


def seeds_of(results: Path, arm: str) -> Sequence[Rows]:
    """The scores of every seed of an arm, with the share of copies where those are counted apart.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted((results / SCORES).glob(f"{arm}-*"))
    if not folders:
        raise FileNotFoundError(f"no scores of {arm} in {results}; has the stage that scores it run?")
    if not (results / COPIES).is_dir():
        return [read_rows(folder) for folder in folders]
    return [with_copies(read_rows(folder), results / COPIES / folder.name) for folder in folders]
