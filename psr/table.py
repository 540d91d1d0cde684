"""The tables of the branch, of things and of people, and the funnel of the synthetic data above them."""

import json
from collections.abc import Sequence
from pathlib import Path

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.preference_table import read_rows
from mcpipe.bench.psr_table import PEOPLE, THINGS, Rows, SeedsTable, with_copies
from mcpipe.core.params import Params
from mcpipe.core.report import read_report
from mcpipe.core.shards import whole_folder
from psr.arms import ARMS, COMPARED

METRICS = {"things": THINGS, "people": PEOPLE}


class TableParams(Params):
    """Settings of the table."""

    interval: IntervalParams


def run(  # noqa: PLR0913  one argument per path
    texts: Path, targets: Path, synthetic: Path, samples: Path, results: Path, copying: Path, table: Path,
    params: TableParams,
) -> None:  # fmt: skip
    """Write ``table.txt``, ``table.json`` and ``funnel.json``.

    Raises:
        FileNotFoundError: a stage or an arm has no results.
        ValueError: arms answer different prompts.
    """
    lines, content, funnel = [], {}, {}
    for kind, arms in ARMS.items():
        reports = {step.name: read_report(step / kind) for step in (texts, targets, synthetic, samples)}
        funnel[kind] = {name: {key: each[key] for key in ("seen", "kept", "dropped")} for name, each in reports.items()}
        lines += [f"synthetic {kind}"]
        lines += [f"  {name:<10}{step['kept']} of {step['seen']}; dropped {step['dropped']}"
                  for name, step in funnel[kind].items()]  # fmt: skip
        rows = {arm: seeds_of(results, copying, arm, kind) for arm in arms}
        compared = SeedsTable(rows, COMPARED[kind], METRICS[kind], params.interval)
        content[kind] = compared.as_json()
        lines += ["", *compared.as_lines(), ""]
    with whole_folder(table) as folder:
        (folder / "table.txt").write_text("\n".join(lines), encoding="utf-8")
        for name, each in (("table", content), ("funnel", funnel)):
            (folder / f"{name}.json").write_text(json.dumps(each, indent=1) + "\n", encoding="utf-8")


def seeds_of(results: Path, copying: Path, arm: str, kind: str) -> Sequence[Rows]:
    """The results of every seed of an arm, of things with the share of copies.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted(results.glob(f"{arm}-*"))
    if not folders:
        raise FileNotFoundError(f"no results of {arm} in {results}; has the stage that scores it run?")
    if kind == "people":
        return [read_rows(folder) for folder in folders]
    return [with_copies(read_rows(folder), copying / folder.name) for folder in folders]
