"""Content of the report page as plain data, which ``page.html.j2`` lays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import ArmScores
from mcpipe.report.ablation import Ablation
from mcpipe.report.figures import Plot


@dataclass(frozen=True)
class Figure:
    """An image on the page."""

    uri: str
    alt: str
    """Description for readers who cannot see the image."""


class Refusal(BaseModel):
    """One rejected item."""

    key: str
    reason: str
    detail: str
    scores: dict[str, JsonValue] = {}
    """Measurements."""


class Account(BaseModel):
    """The content of a stage's ``report.json``."""

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
class ClipTile:
    """A clip's frame and what became of it."""

    figure: Figure | None
    """``None`` if no frame of the file can be decoded."""
    name: str
    reason: str | None
    """Why it was rejected; ``None`` for one that became a sample."""
    stage: str | None
    """Where it was rejected."""
    alike: int
    """How many were rejected there for that reason, this one included."""


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
    plots: Sequence[tuple[str, Plot]]
    """Name and image of each quantity."""
    usage: Plot | None
    """Usage of each expert of each layer, if the training reports it."""


@dataclass(frozen=True)
class Look:
    """Attention maps of the tokens of one reference."""

    reference: Figure
    before: tuple[Figure, str]
    """Attention over the image before training, and a note."""
    after: tuple[Figure, str]


@dataclass(frozen=True)
class Maps:
    """Attention maps of all references over one image."""

    looks: Sequence[Look]


@dataclass(frozen=True)
class PromptRow:
    """One benchmark prompt, as every arm answers it."""

    prompt: str
    references: Sequence[Figure]
    cells: Mapping[str, tuple[Figure, str]]
    """Image and its scores in words, by arm."""
    controls: Mapping[str, tuple[Figure, str]]
    """The last arm's image for each control, and its score in words."""


@dataclass(frozen=True)
class Example:
    """One image of an arm, chosen by its score."""

    picture: Figure
    references: Sequence[Figure]
    prompt: str
    face_sim: float
    note: str
    """Scores in words."""
    num_equal: int
    """Number of images of the arm with this very Face-Sim, this one included."""


@dataclass(frozen=True)
class Extremes:
    """The images of an arm with the highest and the lowest Face-Sim."""

    best: Example
    worst: Example


@dataclass(frozen=True)
class StudySection:
    """An ablation with its figures."""

    ablation: Ablation
    plots: Sequence[tuple[str, Plot]]
    """By the first metric of each."""


@dataclass(frozen=True)
class Page:
    """Everything the page shows."""

    funnel: Sequence[Account]
    pool: Sequence[Account]
    """Faces and prompts of the benchmark."""
    clips: Sequence[ClipTile]
    samples: Sequence[Sheet]
    curves: Sequence[Curves]
    maps: Sequence[Maps]
    arms: Sequence[ArmScores]
    extremes: Mapping[str, Extremes]
    """Best and worst image by arm."""
    others: Sequence[ArmScores]
    """Other systems that answered the same prompts."""
    suites: Mapping[str, Sequence[ArmScores]]
    """Who answered public suites, by suite."""
    face_sim: Plot
    """Face-Sim of every arm and system, with intervals."""
    similarities: Sequence[tuple[str, Plot]]
    """Cosines of the right and of wrong people, by arm."""
    rows: Sequence[PromptRow]
    changes: Mapping[str, Mapping[str, Interval]]
    """Changes of each arm against the one before, by arm and metric."""
    study: StudySection | None
    """The ablation, if there has been one."""
    accounts: Sequence[Account]
    """Accounts of every stage, in order; several of a stage that ran once per arm."""
