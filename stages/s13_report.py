"""Stage 13: one page that tells the run."""

import csv
import json
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mcpipe.bench.gallery import ReportParams, clip_tiles, fates, maps, row, sheet
from mcpipe.bench.page import Account, Curves, Maps, Page, Row, render
from mcpipe.bench.pictures import curve_plot
from mcpipe.bench.tables import ArmScores, changes, from_metrics
from mcpipe.report import Report, read_report
from mcpipe.shards import read_shards, whole_folder

logger = logging.getLogger(__name__)

LIVE = "live/plots/metrics"
"""Where DVCLive keeps its tables inside a training stage's output."""
LARGEST_PAGE_MB = 5
"""Above this a page is slow to open on a phone."""

Scores = dict[str, dict[str, dict[str, float]]]
"""By arm, picture and metric."""


def run(  # noqa: PLR0913  one argument per path in dvc.yaml
    frames: Path,
    subjects: Path,
    identity: Path,
    captions: Path,
    samples: Path,
    encode: Path,
    models: Path,
    pairs: Path,
    images: Path,
    results: Path,
    report: Path,
    params: ReportParams,
) -> None:
    """Write ``index.html`` and the report.

    Raises:
        FileNotFoundError: an arm named in the settings was not trained, drawn or judged.
    """
    for folder in (models, images, results):
        check_arms(folder, params.arms)
    curation = [account(folder) for folder in (frames, subjects, identity, captions, samples, encode)]
    suite = [account(pairs / "faces"), account(pairs)]
    scores = {arm: read_rows(results / arm) for arm in params.arms}
    page = Page(
        funnel=curation,
        pool=suite,
        clips=clip_tiles(read_shards(frames), fates(curation), params.num_clips),
        samples=[sheet(record, params.picture_px) for record in islice(read_shards(samples), params.num_samples)],
        curves=[curves for arm in params.arms if (curves := read_curves(models / arm)).plots],
        maps=[shown for arm in params.arms for shown in read_maps(models / arm, samples, params)],
        arms=[read_metrics(results / arm) for arm in params.arms],
        rows=read_answers(pairs, images, scores, params),
        changes=changes(params.arms, scores, params.interval),
        accounts=[
            *curation,
            *suite,
            *(account(folder / arm) for folder in (models, images, results) for arm in params.arms),
        ],
    )
    write_page(report, page)


def write_page(report: Path, page: Page) -> None:
    """Write the page and its account."""
    html = render(page)
    size_mb = len(html.encode()) / 1e6
    if size_mb > LARGEST_PAGE_MB:
        logger.warning("the page has %.1f MB; lower report.picture_px or the numbers of pictures", size_mb)
    summary = Report("report", ("jinja2", "matplotlib", "pillow"))
    for arm in page.arms:
        summary.keep(arm.name)
    summary.facts = {
        "clips": len(page.clips),
        "samples": len(page.samples),
        "prompts": len(page.rows),
        "maps": len(page.maps),
    }
    with whole_folder(report) as folder:
        (folder / "index.html").write_text(html, encoding="utf-8")
        summary.write(folder)


def check_arms(folder: Path, arms: Sequence[str]) -> None:
    """Make sure that every arm has its output.

    Raises:
        FileNotFoundError: one has none.
    """
    for arm in arms:
        if not (folder / arm).is_dir():
            known = ", ".join(sorted(path.name for path in folder.glob("*") if path.is_dir())) or "none"
            raise FileNotFoundError(f"report.arms names {arm!r}, but {folder} holds {known}")


def account(folder: Path) -> Account:
    """What a stage says of itself."""
    return Account.model_validate(read_report(folder))


def read_curves(model: Path) -> Curves:
    """What a training stage logged with DVCLive: one TSV file per quantity."""
    folder = model / LIVE
    plots = []
    for file in sorted(folder.rglob("*.tsv")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        with file.open(encoding="utf-8", newline="") as lines:
            table = list(csv.DictReader(lines, delimiter="\t"))
        if len(table) > 1:
            values = [float(line[file.stem]) for line in table]
            plots.append((name, curve_plot(name, [float(line["step"]) for line in table], values)))
    return Curves(model.name, plots)


def read_maps(model: Path, samples: Path, params: ReportParams) -> list[Maps]:
    """The attention maps that a training stage left, if it left any, over the samples that they belong to."""
    files = {file.stem: file for file in sorted((model / "attention").glob("*.npz"))[: params.num_maps]}
    return [
        maps(sample, dict(np.load(files[sample.key])), params.picture_px)
        for sample in (read_shards(samples) if files else ())
        if sample.key in files
    ]


def read_metrics(results: Path) -> ArmScores:
    """The scores of an arm."""
    return from_metrics(results.name, json.loads((results / "metrics.json").read_text()))


def read_rows(results: Path) -> dict[str, dict[str, float]]:
    """The scores of every picture of an arm, by its key."""
    return {row["key"]: row for row in pq.read_table(results / "rows.parquet").to_pylist()}


def read_answers(pairs: Path, images: Path, scores: Scores, params: ReportParams) -> list[Row]:
    """The first prompts of the benchmark with the pictures of all arms."""
    prompts = list(islice(read_shards(pairs / "bench"), params.num_prompts))
    wanted = {prompt.key for prompt in prompts}
    references = {record.key: record.arrays["reference"] for record in read_shards(pairs / "faces")}
    pictures: dict[str, dict[str, np.ndarray]] = {key: {} for key in wanted}
    for arm in params.arms:
        for record in read_shards(images / arm):
            if record.key in wanted:
                pictures[record.key][arm] = record.arrays["image"]
    return [
        row(
            prompt,
            references,
            pictures[prompt.key],
            {arm: scores[arm][prompt.key] for arm in params.arms},
            params.picture_px,
        )
        for prompt in prompts
    ]
