"""What an editing model does for synthetic data: it redraws subjects, and edits targets of some task types (PSR)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.curate.psr_edits import CAPTION, EDITED, REFUSED
from mcpipe.curate.psr_settings import EditChecks, Kind
from mcpipe.curate.psr_texts import DrawnTarget
from mcpipe.curate.samples import resize
from mcpipe.flux.kontext import Editor, EditorParams, KontextEditor
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.protocols import Captioner, Picture
from mcpipe.steps.objects import check_answers
from mcpipe.steps.synthetic_subjects import SubjectFinder, check_same
from mcpipe.steps.synthetic_texts import seed_of

REDRAW = "Show the same subject alone in another place, as this describes it: {scene}"
"""Instruction for a redrawn subject (ours)."""
LoadEditor = Callable[[Path, EditorParams], Editor]


@dataclass(frozen=True)
class EditorDrawer:
    """Redraws a subject with an editing model in place of the generator with its adapter."""

    editor: Editor
    image_size: int
    """Side of what is drawn in pixels."""

    def draw(self, prompt: str, reference: Picture | None, seed: int) -> Picture:
        """The subject of a reference in the scene of a prompt."""
        assert reference is not None, "there is a subject"
        drawn = self.editor.edited(reference, REDRAW.format(scene=prompt), seed=seed)
        return resize(drawn, (self.image_size, self.image_size))


@dataclass(frozen=True)
class EditModels:
    """Where the models lie that edit targets and are asked about them."""

    editor: Path
    judge: Path
    load_editor: LoadEditor = KontextEditor
    ask: Callable[[Path], Captioner] = Qwen2_5VL

    def editor_of(self, kind: Kind, finder: SubjectFinder, checks: EditChecks, editing: EditorParams) -> "TargetEditor":
        """Load them, the judge only if there are questions.

        Raises:
            FileNotFoundError: a model is missing.
            ValueError: a model is damaged, or is of another kind.
        """
        judge = self.ask(self.judge) if checks.questions else None
        return TargetEditor(self.load_editor(self.editor, editing), finder, judge, kind, checks)


@dataclass(frozen=True)
class TargetEditor:
    """Edits targets, and checks that their subjects are still there and the same."""

    editor: Editor
    finder: SubjectFinder
    judge: Captioner | None
    kind: Kind
    checks: EditChecks

    def edited(self, target: DrawnTarget, edits: Mapping[str, str], seed: int) -> DrawnTarget:
        """The target after its edit, with the caption of that; as it was, with the reason, if every edit is refused.

        Args:
            target: As it was drawn; its crops and embeddings stay.
            edits: Of its text: the instruction and the caption after it. Without them nothing is done.
            seed: Of the noise, together with the target's key.
        """
        if EDITED not in edits:
            return replace(target, edits=dict(edits))
        reason, (height, width) = "", target.image.shape[:2]
        for attempt in range(self.checks.attempts):
            drawn = self.editor.edited(target.image, edits[EDITED], seed=seed_of(f"{target.key}/edit/{attempt}", seed))
            picture = resize(drawn, (width, height))
            try:
                self._check(picture, target, edits[CAPTION])
            except RejectionError as error:
                reason = error.reason
                continue
            return replace(target, caption=edits[CAPTION], edits={EDITED: edits[EDITED]}, image=picture)
        return replace(target, edits={REFUSED: reason})

    def _check(self, picture: Picture, target: DrawnTarget, caption: str) -> None:
        features = self.finder.locate(picture, target.categories, "target").features
        for place, category in enumerate(target.categories):
            cosines = np.clip(target.features @ features[place], -1, 1)
            check_same(cosines, place, category, self.checks.min_similarity[self.kind])
        if self.judge is not None:
            check_answers(picture, [caption], self.judge, self.checks.questions)
