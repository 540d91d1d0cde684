"""Stage 13: a page about the run, its figures as files, and their data as tables."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import LABELS, PEOPLE, changes
from mcpipe.core.report import Report
from mcpipe.core.shards import whole_folder
from mcpipe.report.ablation import Ablation
from mcpipe.report.content import Account, Page, StudySection
from mcpipe.report.figures import Plot, funnel_plot, interval_plot, similarity_plot, similarity_shares
from mcpipe.report.gallery import ReportParams, map_sheet, maps, sheet
from mcpipe.report.images import contact_sheet
from mcpipe.report.inputs import (
    AttentionMaps,
    PictureScores,
    Scores,
    account,
    check_arms,
    read_ablation,
    read_answers,
    read_clips,
    read_curves,
    read_extremes,
    read_maps,
    read_others,
    read_overview,
    read_rows,
    read_samples,
)
from mcpipe.report.page import render, title_of

logger = logging.getLogger(__name__)

LARGEST_PAGE_MB = 5
"""Above this a page is slow to open on a phone."""
FACE_SIM = {"face_sim": "Face-Sim", "face_sim_heldout": "Face-Sim* (held-out recogniser)"}
PAIRS = (("face_sim", "face_sim_heldout"), ("overall", "detection_rate"), ("dino_i", "clip_i"), ("clip_t", "hps"))
"""Metrics that share a figure of the ablation."""

NUM_OVERVIEW, OVERVIEW_PX, OVERVIEW_GAP_PX = 4, 144, 6
"""Prompts of the image beside the page that shows every arm, and the size of its tiles."""

KINDS = ("same", "cross")
"""Cosines of located faces with the right person, and with the other person of the prompt."""


def run(  # noqa: PLR0913  one argument per path in dvc.yaml
    clips: Path,
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
    ablation: Path,
    report: Path,
    params: ReportParams,
) -> None:
    """Write ``index.html``, its figures to ``plots``, the numbers behind them to ``series``, and the report.

    ``ablation`` is what `make ablation` wrote, some time and apart from this run; it may be empty.

    Raises:
        FileNotFoundError: an arm in the settings was not trained, generated or evaluated.
        ValueError: the ablation's outcome is damaged.
    """
    check_arms((models, images, results), params.arms)
    curation = [account(folder) for folder in (frames, subjects, identity, captions, samples, encode)]
    suite = [account(folder) for folder in (pairs / "faces", pairs)]
    arms = [read_scores(results / arm) for arm in params.arms]
    others = (suites := read_others(results, arms)).pop(PEOPLE, [])
    scores = {arm.name: read_rows(results / arm.name) for arm in (*arms, *others)}
    drawn = {arm: read_maps(models / arm, samples, params.num_maps) for arm in params.arms}
    page = Page(
        funnel=curation,
        pool=suite,
        clips=read_clips(clips, frames, curation, params.num_clips),
        samples=[sheet(record, params.picture_px) for record in read_samples(samples, params.num_samples)],
        curves=[curves for arm in params.arms if (curves := read_curves(models / arm)).plots],
        maps=[maps(*sample_maps, params.picture_px) for some in drawn.values() for sample_maps in some],
        arms=arms,
        extremes=read_extremes(pairs, images, scores, params),
        others=others,
        suites=suites,
        face_sim=interval_plot(FACE_SIM, {title_of(arm.name): arm.means for arm in (*arms, *others)}),
        similarities=similarity_plots(scores),
        rows=read_answers(pairs, images, scores, params),
        changes=changes(params.arms, scores, params.interval),
        study=study(read_ablation(ablation)),
        accounts=[*curation, *suite, *accounts((models, images, results), params.arms)],
    )
    write(report, page, scores, drawn, read_overview(pairs, images, params.arms, NUM_OVERVIEW))


def write(
    report: Path,
    page: Page,
    scores: Scores,
    drawn: Mapping[str, Sequence[AttentionMaps]],
    overview: Sequence[Sequence[np.ndarray]],
) -> None:
    """Write the page, its plots and the numbers behind them.

    ``overview`` has a row for each of the first prompts: its references, then the image of every arm.
    """
    with whole_folder(report) as folder:
        write_page(folder, page)
        write_plots(folder / "plots", page, drawn)
        contact_sheet(overview, OVERVIEW_PX, OVERVIEW_GAP_PX).save(folder / "plots" / "benchmark.png")
        write_series(folder / "series", page, scores)


def accounts(folders: Sequence[Path], arms: Sequence[str]) -> list[Account]:
    """Reports of the stages that run once per arm."""
    return [account(folder / arm) for folder in folders for arm in arms]


def study(ablation: Ablation | None) -> StudySection | None:
    """An ablation with its figures."""
    if ablation is None:
        return None
    arms = {ablation.titles[arm]: means for arm, means in ablation.means.items()}
    groups = [{metric: LABELS[metric] for metric in pair if metric in ablation.metrics} for pair in PAIRS]
    return StudySection(ablation, [(next(iter(labels)), interval_plot(labels, arms)) for labels in groups if labels])


def similarity_plots(scores: Scores) -> list[tuple[str, Plot]]:
    """Histograms of cosines by arm."""
    return [
        (arm, similarity_plot(title_of(arm), *(cosines(rows, kind) for kind in KINDS))) for arm, rows in scores.items()
    ]


def cosines(rows: Mapping[str, PictureScores], kind: str) -> list[float]:
    """All cosines of a kind, of all images."""
    return [cosine for row in rows.values() for cosine in row[kind]]


def write_page(folder: Path, page: Page) -> None:
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
        "other_systems": len(page.others),
        "ablation": page.study.ablation.commit if page.study else None,
    }
    (folder / "index.html").write_text(html, encoding="utf-8")
    summary.write(folder)


def write_plots(folder: Path, page: Page, drawn: Mapping[str, Sequence[AttentionMaps]]) -> None:
    """Write the page's figures, and the attention maps of each arm, as files that ``dvc plots`` shows."""
    folder.mkdir()
    for arm, some in drawn.items():
        for number, sample_maps in enumerate(some):
            map_sheet(*sample_maps).save(folder / f"attention_{arm}_{number}.png")
    plots = {
        "face_sim": page.face_sim,
        "funnel": funnel_plot([(title_of(step.stage), step.seen, step.kept) for step in page.funnel]),
        **{f"similarity_{arm}": plot for arm, plot in page.similarities},
        **{f"experts_{curves.stage}": curves.usage for curves in page.curves if curves.usage},
        **{
            f"{curves.stage}_{name}".replace("/", "_"): plot
            for curves in page.curves
            for name, plot in curves.plots
            if name.startswith("reward")
        },
        **{f"ablation_{name}": plot for name, plot in (page.study.plots if page.study else ())},
    }
    for name, plot in plots.items():
        (folder / f"{name}.svg").write_text(plot.document, encoding="utf-8")


def write_series(folder: Path, page: Page, scores: Scores) -> None:
    """Write the data of the figures as tables, which ``dvc plots diff`` compares with another run."""
    folder.mkdir()
    arms = [*page.arms, *page.others]
    lines = [
        {"arm": arm.name, "metric": metric, "value": i.value, "low": i.low, "high": i.high}
        for arm in arms
        for metric, i in arm.means.items()
    ]
    write_table(folder / "scores.csv", lines, ("arm", "metric", "value", "low", "high"))
    face_sim = [{"arm": arm.name, "face_sim": arm.means["face_sim"].value} for arm in arms]
    write_table(folder / "face_sim.csv", face_sim, ("arm", "face_sim"))
    steps = [{"stage": step.stage, "seen": step.seen, "kept": step.kept} for step in page.funnel]
    write_table(folder / "funnel.csv", steps, ("stage", "seen", "kept"))
    bars = [
        {"cosine": cosine, "share": share, "pairs": f"{arm}: {kind}"}
        for arm, rows in scores.items()
        for kind in KINDS
        for cosine, share in similarity_shares(cosines(rows, kind))
    ]
    write_table(folder / "similarity.csv", bars, ("cosine", "share", "pairs"))


def write_table(file: Path, lines: Sequence[Mapping[str, str | float]], columns: Sequence[str]) -> None:
    """Write a CSV file; numbers have six digits."""
    with file.open("w", encoding="utf-8", newline="") as rows:
        table = csv.DictWriter(rows, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines)
