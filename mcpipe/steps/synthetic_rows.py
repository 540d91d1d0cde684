"""Rows of objects from synthetic targets: each subject is redrawn in another place, which becomes its reference (PSR).

The single-subject model is an adapter of this project over the generator, or an editing model of the class of FLUX.1
Kontext, as in PSR. A redrawn subject has to look like its crop, but not be a copy of it, by DINO, or by the recogniser
of faces; the language model may be asked about it, too. The rows have the format that `mcpipe.curate.object_rows`
reads, so that samples are made of them as of any others.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field, model_validator

from mcpipe.core.params import Params
from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import StoredItems, whole_folder
from mcpipe.curate.object_rows import IMAGE, ORIGIN, PHRASE, PROMPT, TARGET, with_article
from mcpipe.curate.psr_settings import Kind
from mcpipe.curate.psr_texts import NUMBERS, DrawnTarget, SyntheticRow
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of
from mcpipe.execution.workers import Decide
from mcpipe.flux.kontext import KIND, KontextEditor
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.protocols import Captioner, Picture
from mcpipe.steps.objects import check_answers
from mcpipe.steps.synthetic_edits import EditorDrawer, LoadEditor
from mcpipe.steps.synthetic_subjects import SubjectFinder, SubjectModels, check_same
from mcpipe.steps.synthetic_targets import DrawingParams, ImageDrawer, LoadDrawer, load_drawer
from mcpipe.steps.synthetic_texts import counted, edit_facts, seed_of

PACKAGES = ("torch", "diffusers", "transformers", "peft", "sam2", "ultralytics", "insightface")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of similarities in the report."""
COLUMNS = [
    *(column for place in range(max(NUMBERS.values())) for column in (IMAGE.format(place), PHRASE.format(place))),
    TARGET, PROMPT, "task",
]  # fmt: skip
SCHEMA = pa.schema([(name, pa.binary() if "img" in name else pa.string()) for name in COLUMNS])


class LikenessParams(Params):
    """The range of cosines of a redrawn subject and its crop."""

    min_similarity: float = Field(ge=-1, le=1)
    """Least one; below, it is another subject."""
    max_similarity: float = Field(ge=-1, le=1)
    """Largest one; above, it is a copy."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "LikenessParams":
        if self.min_similarity >= self.max_similarity:
            raise ValueError(f"min_similarity {self.min_similarity} is not below max_similarity {self.max_similarity}")
        return self


class SyntheticParams(DrawingParams):
    """How subjects are redrawn, and which are refused."""

    editor: str | None
    """Folder of a ``FluxKontextPipeline`` that redraws them; ``None``: the adapter does."""
    likeness: dict[Kind, LikenessParams]
    """By kind: cosines by DINO for things, by the recogniser for people."""
    questions: list[str]
    """Questions about every redrawn image, with ``{phrase}`` in place of the category; "yes" lets it pass."""


@dataclass(frozen=True)
class RedrawWork:
    """What this stage does to every target."""

    generator: Path
    adapter: Path
    kind: Kind
    models: SubjectModels
    judge: Path
    params: SyntheticParams
    load_drawer: LoadDrawer = load_drawer
    load_editor: LoadEditor = KontextEditor
    ask: Callable[[Path], Captioner] = Qwen2_5VL
    editor: Path | None = None
    """The folder of `SyntheticParams.editor`."""

    def load(self) -> Decide:
        """Load the models, the judge only if there are questions; the function that redraws one target's subjects."""
        params = self.params
        redrawer = Redrawer(
            self._drawer(),
            self.models.finder(self.kind, params),
            self.ask(self.judge) if params.questions else None,
            params.likeness[self.kind],
            params,
            self.origin,
        )
        return redrawer.row

    @property
    def origin(self) -> dict[str, str]:
        """Which editing model redraws subjects; nothing if the adapter does."""
        return {} if self.editor is None else {"redrawn_by": f"{KIND} {self.editor.name}"}

    def _drawer(self) -> ImageDrawer:
        if self.editor is None:
            return self.load_drawer(self.generator, self.adapter, self.params)
        return EditorDrawer(self.load_editor(self.editor, self.params.editing), self.params.image_size)


@dataclass(frozen=True)
class Redrawer:
    """The loaded models and the decision on one target."""

    drawer: ImageDrawer
    finder: SubjectFinder
    judge: Captioner | None
    likeness: LikenessParams
    params: SyntheticParams
    origin: Mapping[str, str] = field(default_factory=dict)
    """Which editing model redraws, if one does."""

    def row(self, target: DrawnTarget) -> SyntheticRow:
        """The target with a redrawn reference of every subject.

        Raises:
            RejectionError: ``not_in_reference`` or another reason of the finder, ``other_subject``, ``copied``,
                ``answered_no`` or ``no_answer`` of the last image of a subject.
        """
        redrawn = [self._reference(target, place) for place in range(len(target.crops))]
        references, similarities, attempts = zip(*redrawn, strict=True)
        own = [float(row[place]) for place, row in enumerate(similarities)]
        cross = [float(value) for place, row in enumerate(similarities) for value in np.delete(row, place)]
        return SyntheticRow(
            key=target.key, task=target.task, categories=target.categories, caption=target.caption,
            similarities=tuple(own), cross=tuple(cross), attempts=attempts, image=target.image,
            references=np.stack(references), origin={**target.edits, **self.origin},
        )  # fmt: skip

    def _reference(self, target: DrawnTarget, place: int) -> tuple[Picture, np.ndarray, int]:
        """A redrawn subject in its place, its cosines to all crops, and the number of images drawn."""
        rejection = None
        for attempt in range(self.params.attempts):
            seed = seed_of(f"{target.key}/{place}/{attempt}", self.params.seed)
            picture = self.drawer.draw(target.scenes[place], target.crops[place], seed)
            try:
                return picture, self._checked(picture, target, place), attempt + 1
            except RejectionError as error:
                rejection = error
        assert rejection is not None, "there is an attempt"
        raise rejection

    def _checked(self, picture: Picture, target: DrawnTarget, place: int) -> np.ndarray:
        category = target.categories[place]
        (feature,) = self.finder.locate(picture, [category], "reference").features
        cosines = np.clip(target.features @ feature, -1, 1)
        own = check_same(cosines, place, category, self.likeness.min_similarity)
        scores: dict[str, JSON] = {"similarity": round(own, 4)}
        if own > self.likeness.max_similarity:
            raise RejectionError("copied", f"{category!r} has a cosine of {own:.3f} to its crop", scores)
        if self.judge is not None:
            check_answers(picture, [with_article(category)], self.judge, self.params.questions)
        return cosines


def write_synthetic(work: RedrawWork, targets: Path, out: Path) -> None:
    """Write Parquet files of rows from the targets all of whose subjects could be redrawn.

    Raises:
        FileNotFoundError: targets or a model are missing.
        ValueError: a model is damaged, or no row is usable.
    """
    report, params = Report("synthetic", PACKAGES), work.params
    with whole_folder(out) as folder:
        made = decided(StoredItems((targets, DrawnTarget)), work, report, progress_of(out))
        stream = (SyntheticRow.from_record(packed.record()) for packed in made)
        rows, origins = [], []
        while some := list(islice(stream, params.records_per_shard)):
            pq.write_table(as_table(some), folder / f"rows-{some[0].key}.parquet")
            rows += [(row.task, len(row.categories), row.similarities, row.cross, row.attempts) for row in some]
            origins += [row.origin for row in some]
        if not rows:
            raise ValueError(f"no row is usable: {report.summary()['dropped']}; see synthetic in params.yaml")
        tasks, numbers, own, cross, attempts = zip(*rows, strict=True)
        report.facts = {
            "by_task": counted(list(tasks)),
            "by_number": counted([str(number) for number in numbers]),
            "by_attempts": counted([str(count) for counts in attempts for count in counts]),
            "similarity": quantiles(own),
            "similarity_to_others": quantiles(cross),
            **work.origin,
            **edit_facts(origins),
        }
        report.write(folder)


def quantiles(values: Iterable[Sequence[float]]) -> list[JSON]:
    """`QUANTILES` of all values."""
    return [round(float(value), 4) for value in np.quantile([v for some in values for v in some], QUANTILES)]


def as_table(rows: Sequence[SyntheticRow]) -> pa.Table:
    """Rows in the format of MUSAR-Gen; a row with fewer references leaves the last columns empty.

    Columns of `ORIGIN` are there if a row has something to say in them.
    """
    schema = SCHEMA
    for name in ORIGIN:
        if any(name in row.origin for row in rows):
            schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pylist([cells(row) for row in rows], schema)


def cells(row: SyntheticRow) -> dict[str, object]:
    """The cells of a row."""
    filled: dict[str, object] = {TARGET: png(row.image), PROMPT: row.caption, "task": row.task, **row.origin}
    for place, (category, reference) in enumerate(zip(row.categories, row.references, strict=True)):
        filled |= {IMAGE.format(place): png(reference), PHRASE.format(place): category}
    return filled


def png(picture: Picture) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
