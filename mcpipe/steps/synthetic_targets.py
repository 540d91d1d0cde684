"""Targets of synthetic training data: drawn after a prompt without references, every subject located and cut (PSR)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from mcpipe.core.params import RecordsPerShard, TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import StoredItems, read_shards, whole_folder, write_shards
from mcpipe.curate.psr_settings import EditChecks, EditsParams, Kind
from mcpipe.curate.psr_texts import DrawnTarget, SyntheticText
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of
from mcpipe.execution.workers import Decide
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.kontext import EditorParams
from mcpipe.flux.sampler import Requests, SampleParams, generate
from mcpipe.models.protocols import Picture
from mcpipe.steps.synthetic_edits import EditModels, TargetEditor
from mcpipe.steps.synthetic_subjects import FinderParams, SubjectFinder, SubjectModels
from mcpipe.steps.synthetic_texts import counted, edit_facts, seed_of

PACKAGES = ("torch", "diffusers", "transformers", "sam2", "ultralytics", "insightface")
WHITE = 255
"""Content of a reference that the network does not see."""


class DrawingParams(FinderParams):
    """How images are drawn and subjects found in them."""

    seed: int = Field(ge=0)
    """Seed of the noise, together with a text's key."""
    attempts: int = Field(ge=1)
    """Maximum number of images drawn for one text, or of one subject."""
    sample: Annotated[SampleParams, TakenFrom("generate.sample")]
    """How images are drawn."""
    image_size: Annotated[int, Field(ge=16), TakenFrom("samples.image_size")]
    """Side of the target in pixels."""
    editing: Annotated[EditorParams, TakenFrom("editor")]
    """How the editing model draws, if there is one."""
    records_per_shard: RecordsPerShard


class TargetsParams(DrawingParams):
    """How targets are drawn, which are edited, and what has to be found in them."""

    edits: Annotated[EditsParams, TakenFrom("edits")]
    edit_checks: EditChecks


class ImageDrawer(Protocol):
    """A generator that draws one square image."""

    def draw(self, prompt: str, reference: Picture | None, seed: int) -> Picture:
        """An image for a prompt and at most one reference."""
        ...


@dataclass(frozen=True)
class FluxDrawer:
    """Draws with a FLUX pipeline, with an adapter or without."""

    pipeline: FluxPipeline
    sample: SampleParams
    image_size: int
    reference_size: int

    def draw(self, prompt: str, reference: Picture | None, seed: int) -> UInt8[np.ndarray, "S S 3"]:
        """An image for a prompt and at most one reference."""
        size = self.reference_size
        given = np.full((size, size, 3), WHITE, np.uint8) if reference is None else reference
        requests = Requests([prompt], [given[None]], [seed], self.sample, self.image_size, 1)
        (image,) = generate(self.pipeline, requests, hide_references=reference is None)
        return image


def load_drawer(generator: Path, adapter: Path | None, params: DrawingParams) -> ImageDrawer:
    """Load a generator, with the adapter in a folder if there is one.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the adapter was trained with references of another size.
    """
    pipeline = load_generator(generator)
    if adapter is not None:
        spec = load_adapter(pipeline, adapter)
        if spec.reference_size != params.reference_size:
            raise ValueError(
                f"{adapter} was trained with references of {spec.reference_size} px, but samples.reference_size is "
                f"{params.reference_size}; train it again"
            )
    return FluxDrawer(pipeline, params.sample, params.image_size, params.reference_size)


LoadDrawer = Callable[[Path, Path | None, DrawingParams], ImageDrawer]


@dataclass(frozen=True)
class TargetsWork:
    """What this stage does to every text."""

    generator: Path
    kind: Kind
    models: SubjectModels
    params: TargetsParams
    load_drawer: LoadDrawer = load_drawer
    edits: EditModels | None = None
    """What edits targets, unless none is edited."""

    def load(self) -> Decide:
        """Load the models; the function that draws the target of one text."""
        params = self.params
        drawer = self.load_drawer(self.generator, None, params)
        finder = self.models.finder(self.kind, params)
        editor = None
        if self.edits is not None:
            editor = self.edits.editor_of(self.kind, finder, params.edit_checks, params.editing)
        return partial(drawn_target, drawer=drawer, finder=finder, params=params, editor=editor)


def write_targets(work: TargetsWork, texts: Path, out: Path) -> None:
    """Write the targets of one kind in which every subject is found, with its crop.

    Raises:
        FileNotFoundError: texts or a model are missing.
        ValueError: a model is damaged, or no target is usable.
    """
    report, params = Report("targets", PACKAGES), work.params
    with whole_folder(out) as folder:
        targets = decided(StoredItems((texts, SyntheticText)), work, report, progress_of(out))
        if not write_shards(targets, folder, params.records_per_shard):
            raise ValueError(
                f"no target is usable: {report.summary()['dropped']}; see texts and targets in params.yaml"
            )
        kept = list(read_shards(folder, DrawnTarget))
        report.facts = {
            "by_task": counted([target.task for target in kept]),
            "by_number": counted([str(len(target.categories)) for target in kept]),
            "by_attempts": counted([str(target.attempts) for target in kept]),
            **edit_facts([target.edits for target in kept]),
        }
        report.write(folder)


def drawn_target(
    text: SyntheticText,
    drawer: ImageDrawer,
    finder: SubjectFinder,
    params: DrawingParams,
    editor: TargetEditor | None = None,
) -> DrawnTarget:
    """The first of several images in which every subject is found, edited if the text asks for it.

    Raises:
        RejectionError: what the finder says of the last of them, such as ``not_in_target``.
    """
    rejection = None
    for attempt in range(params.attempts):
        image = drawer.draw(text.prompt, None, seed_of(f"{text.key}/{attempt}", params.seed))
        try:
            subjects = finder.locate(image, text.categories, "target")
        except RejectionError as error:
            rejection = error
            continue
        target = DrawnTarget(
            key=text.key, task=text.task, categories=text.categories, caption=text.caption, scenes=text.scenes,
            attempts=attempt + 1, edits={}, image=image, crops=subjects.crops, features=subjects.features,
        )  # fmt: skip
        return target if editor is None else editor.edited(target, text.edits, params.seed)
    assert rejection is not None, "there is an attempt"
    raise rejection
