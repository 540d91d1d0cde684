"""The report page: one self-contained HTML file that tells a run from its clips to its scores.

What the page shows is put together here as plain data; how it looks stands in ``page.html.j2``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, JsonValue

from mcpipe.bench.bootstrap import Interval
from mcpipe.bench.published import ABLATION, COMPARISON
from mcpipe.bench.published import METRICS as PUBLISHED_METRICS
from mcpipe.bench.tables import LABELS, MEANINGS, METRICS, POLICY, ArmScores

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


@dataclass(frozen=True)
class Figure:
    """A picture on the page."""

    uri: str
    alt: str
    """What it shows, for those who cannot see it."""


class Refusal(BaseModel):
    """One rejected item."""

    key: str
    reason: str
    detail: str
    scores: dict[str, JsonValue] = {}
    """What was measured of it."""


class Account(BaseModel):
    """What a stage says of itself in its ``report.json``."""

    model_config = ConfigDict(frozen=True)

    stage: str
    seen: int
    kept: int
    dropped: dict[str, int]
    """Count by reason."""
    rejections: list[Refusal]
    facts: dict[str, JsonValue]
    versions: dict[str, str]


@dataclass(frozen=True)
class Clip:
    """A clip's frame and what became of it."""

    figure: Figure
    name: str
    reason: str | None
    """Why it was rejected; ``None`` for one that became a sample."""


@dataclass(frozen=True)
class Sheet:
    """A training sample."""

    caption: str
    references: Sequence[Figure]
    target: Figure
    overlay: Figure
    note: str


@dataclass(frozen=True)
class Curves:
    """Training curves of a stage."""

    stage: str
    plots: Sequence[tuple[str, Markup]]
    """Name and picture of each quantity."""


@dataclass(frozen=True)
class Look:
    """Where the tokens of one reference look."""

    reference: Figure
    before: tuple[Figure, str]
    """Attention over the picture before training, and a note."""
    after: tuple[Figure, str]


@dataclass(frozen=True)
class Maps:
    """Where each reference looks in one picture."""

    looks: Sequence[Look]


@dataclass(frozen=True)
class Row:
    """One benchmark prompt, as every arm answers it."""

    prompt: str
    references: Sequence[Figure]
    cells: Mapping[str, tuple[Figure, str]]
    """Picture and its scores in words, by arm."""


@dataclass(frozen=True)
class Page:
    """Everything the page shows."""

    funnel: Sequence[Account]
    pool: Sequence[Account]
    """Faces and prompts of the benchmark."""
    clips: Sequence[Clip]
    samples: Sequence[Sheet]
    curves: Sequence[Curves]
    maps: Sequence[Maps]
    arms: Sequence[ArmScores]
    rows: Sequence[Row]
    changes: Mapping[str, Mapping[str, Interval]]
    """Of each arm against the one before, by arm and metric."""
    accounts: Sequence[Account]
    """Of every stage, in order; of a stage that ran once per arm, several."""


def render(page: Page) -> str:
    """The page as HTML; every text is escaped, every picture is inside."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"title_of": title_of, "in_words": in_words, "signed": signed}
    template = environment.from_string(files("mcpipe.bench").joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        facts={account.stage: flat(account.facts) for account in page.accounts if account.facts},
        versions=dict(sorted({name: v for account in page.accounts for name, v in account.versions.items()}.items())),
        metrics=METRICS,
        labels=LABELS,
        meanings=MEANINGS,
        policy=POLICY,
        explanations=EXPLANATIONS,
        scales={metric: scale([arm.means[metric] for arm in page.arms]) for metric in METRICS},
        published=(COMPARISON, ABLATION),
        published_metrics=PUBLISHED_METRICS,
    )


def title_of(name: str) -> str:
    """A stage's or an arm's name for people."""
    return TITLES.get(name, name)


def in_words(reason: str) -> str:
    """A reason's name as words."""
    return reason.replace("_", " ")


def signed(value: float) -> str:
    """A difference with its sign, the real minus sign for negative ones."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def flat(facts: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str]:
    """Facts as words and numbers, nested ones under joined names."""
    lines: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            lines |= flat(value, f"{prefix}{name} ")
        else:
            lines[f"{prefix}{name}"] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return lines


def scale(intervals: Sequence[Interval]) -> tuple[float, float]:
    """The range that shows all intervals of a metric: where it starts and how wide it is, never zero."""
    if not intervals:
        return 0.0, 1.0
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)
    return (low, high - low) if high > low else (low - 0.5, 1.0)
