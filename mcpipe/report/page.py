"""The report page: a self-contained HTML file about a run, from its clips to its scores.

`mcpipe.report.content` names what stands on it; ``page.html.j2`` defines the layout.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from pydantic import JsonValue

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import (
    ALL_METRICS,
    AVERAGED,
    CONTROLS,
    LABELS,
    MEANINGS,
    POLICY,
    POLICY_CONTROLS,
    ArmScores,
    columns_of,
    policy_of,
    rewarded_metrics,
)
from mcpipe.report.content import Account, Page, StudySection
from mcpipe.report.published import ABLATION, COMPARISON
from mcpipe.report.published import METRICS as PUBLISHED_METRICS

TITLES = {
    "frames": "Frames",
    "subjects": "People",
    "identity": "Identity",
    "captions": "Captions",
    "samples": "Samples",
    "encode": "Encoded",
    "faces": "Face pool",
    "pairs": "Prompts",
    "generate": "Pictures",
    "evaluate": "Scores",
    "train_single": "Single subject",
    "train_multi": "Multiple subjects",
    "train_rl": "Preferences",
}
"""What people read where files have a stage's or an arm's name; any other name stands for itself."""
EXPLANATIONS = {
    "frames": "an initial and a middle frame of one uncut shot",
    "subjects": "exactly the people wanted, each with a clean mask, in both frames",
    "identity": "one face per person, and surely the same people in both frames",
    "captions": "a sentence that mentions everyone once",
    "samples": "a square that holds everybody, with masks and references",
    "encode": "latents, text embeddings and masks on the token grid",
    "faces": "pictures that show exactly one face",
    "pairs": "a sentence that invents a scene and mentions both people once",
    "train_single": "low-rank adapters, flow matching",
    "train_multi": "expert mixture and attention regularisation on top",
    "train_rl": "online reinforcement learning on identity, text and preference",
}


PAPER = (*AVERAGED, "overall")
"""The columns of the paper's table; all others stand in a table of their own."""
OPENING = ("clip_t", "overall", "detection_rate")
"""Metrics beside Face-Sim, its floor and its ceiling in the first table of the page."""
COMPOSITION = "attributes"
"""The fact in which the stage ``pairs`` counts people by their attributes."""
GROUPS = ("pool", "bench", "rl")


def render(page: Page) -> str:
    """The page as HTML; every text is escaped, every image is inside."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"title_of": title_of, "in_words": in_words, "signed": signed}
    control_metrics = [metric for metric in CONTROLS if any(metric in arm.means for arm in page.arms)]
    scored = metrics_of([*page.arms, *page.others])
    template = environment.from_string(files("mcpipe.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        facts={account.stage: flat(account.facts, skip=COMPOSITION) for account in page.accounts if account.facts},
        composition=composition(page.pool),
        versions=dict(sorted({name: v for account in page.accounts for name, v in account.versions.items()}.items())),
        explained_metrics=[metric for metric in ALL_METRICS if metric in {*scored, *control_metrics}],
        control_metrics=control_metrics,
        paper_metrics=PAPER,
        check_metrics=[metric for metric in scored if metric not in PAPER],
        metrics_of=metrics_of,
        labels=LABELS,
        meanings=MEANINGS,
        policy=" ".join([POLICY, *rewarded_metrics(page.arms)]),
        policy_of=policy_of,
        policy_controls=POLICY_CONTROLS,
        explanations=EXPLANATIONS,
        scales={
            metric: scale([arm.means[metric] for arm in (*page.arms, *page.others) if metric in arm.means])
            for metric in ALL_METRICS
        },
        study_scales=study_scales(page.study),
        opening_metrics=[metric for metric in OPENING if metric in scored],
        reach=reach(page.arms),
        published=(COMPARISON,) if page.study else (COMPARISON, ABLATION),
        published_ablation=ABLATION,
        published_metrics=PUBLISHED_METRICS,
    )


def reach(arms: Sequence[ArmScores]) -> tuple[float, float]:
    """The range of Face-Sim with zero, floors and ceilings: where it starts and how wide it is."""
    metrics = ("face_sim", "face_sim_floor", "face_sim_ceiling")
    intervals = [arm.means[metric] for arm in arms for metric in metrics if metric in arm.means]
    return scale([Interval(0.0, 0.0, 0.0), *intervals])


def study_scales(study: StudySection | None) -> dict[str, tuple[float, float]]:
    """The range of every metric over the arms of an ablation."""
    means = () if study is None else study.ablation.means.values()
    metrics = () if study is None else study.ablation.metrics
    return {metric: scale([of_arm[metric] for of_arm in means]) for metric in metrics}


def metrics_of(systems: Sequence[ArmScores]) -> list[str]:
    """The metrics that at least one of some systems of one suite has."""
    columns = columns_of(systems[0].suite) if systems else ()
    return [metric for metric in columns if any(metric in system.means for system in systems)]


def title_of(name: str) -> str:
    """A stage's or an arm's name for people."""
    return TITLES.get(name, name)


def in_words(reason: str) -> str:
    """A reason's name as words."""
    return reason.replace("_", " ")


def signed(value: float) -> str:
    """A difference with its sign, the real minus sign for negative ones."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def flat(facts: Mapping[str, JsonValue], prefix: str = "", skip: str = "") -> dict[str, str]:
    """Facts as words and numbers, nested ones under joined names, without the one called ``skip``."""
    lines: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, dict) and name != skip:
            lines |= flat(value, f"{prefix}{name} ")
        elif name != skip:
            lines[f"{prefix}{name}"] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return lines


def composition(pool: Sequence[Account]) -> list[tuple[str, str, list[JsonValue]]]:
    """How often the pool and each set of pairs show every value of every attribute: attribute, value and counts."""
    lines = []
    for account in pool:
        attributes = account.facts.get(COMPOSITION)
        for attribute, by_group in attributes.items() if isinstance(attributes, dict) else ():
            groups = [by_group.get(group) for group in GROUPS] if isinstance(by_group, dict) else []
            counts = [group for group in groups if isinstance(group, dict)]
            lines += [(attribute, value, [group.get(value, 0) for group in counts]) for value in counts[0]]
    return lines


def scale(intervals: Sequence[Interval]) -> tuple[float, float]:
    """The range that shows all intervals of a metric: where it starts and how wide it is, never zero."""
    if not intervals:
        return 0.0, 1.0
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)
    return (low, high - low) if high > low else (low - 0.5, 1.0)
