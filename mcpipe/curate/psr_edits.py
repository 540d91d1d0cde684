"""Edits of synthetic targets (PSR, arXiv:2512.01236): somebody does or wears something else than the prompt says.

PSR edits some targets of the task types action and attribute with an image-editing model. Which ones is drawn here, and
what is changed comes from the language model: from another prompt about the same categories, or in its own words.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.curate.psr_settings import Task
from mcpipe.curate.psr_texts import HOLDING, WEARING, Described, check_named, described, without_looks

CHANGED: Mapping[str, str] = {"attribute": "worn", "action": "held"}
"""What an edit changes by task type; targets of other types stay."""
VERBS = {"worn": "wearing", "held": "holding"}
"""How an instruction says it."""
IN_WORDS = {"attribute": "what one of them wears or carries", "action": "what one of them does"}
"""The same for a language model that was not trained on one grammar."""
EDIT = "Change this alone and keep every face, the places of all subjects, the background and the style: {changes}."
"""Instruction for the editing model (ours)."""
EDIT_FROM_PROMPT = (
    "This prompt describes a picture of {categories}: {prompt} Write one short instruction for a picture editor that "
    "changes {what} and nothing else, neither faces nor places nor the background. Answer with the instruction alone."
)
"""Instruction for an edit, for a language model that was not trained on one grammar (ours)."""
AFTER_EDIT = "{prompt} After this change: {edit}"
"""What is described again without looks, by such a language model (ours)."""
STREAM = 1
"""Sets this draw apart from that of the task type and the categories, which has the same seed."""
EDITED, CAPTION, REFUSED = "edit", "edited_caption", "edit_refused"
"""Entries of records: an instruction, the caption after it, or the reason why there is no edit."""


def is_edited(number: int, task: str, share: float, seed: int) -> bool:
    """Whether the target of text ``number`` is to be edited, a pure function of all that is given."""
    return task in CHANGED and bool(np.random.default_rng([seed, number, STREAM]).random() < share)


def edit_between(prompt: str, other: str, categories: Sequence[str], task: Task) -> dict[str, str]:
    """The edit after which the subjects of a prompt wear or hold what those of another prompt do, by the task type.

    Args:
        prompt: In the grammar of the zoo's judge, as `mcpipe.curate.psr_texts.described` reads it.
        other: Of the same form and about the same categories.
        categories: What both name.
        task: One in `CHANGED`.

    Raises:
        RejectionError: ``no_caption`` if the other prompt has another form, ``same_again`` if it says nothing else of
            any subject, ``task_not_said`` if it says too little.
    """
    head, subjects = described(prompt, categories)
    _, others = described(other, categories)
    part = CHANGED[task]
    changes, after = [], []
    for subject in subjects:
        match = next(each for each in others if each.category == subject.category)
        others.remove(match)
        new, text = getattr(match, part), subject.text
        if subject.worn and new and new != getattr(subject, part):
            changes.append(f"{subject.side} the {subject.category} is now {VERBS[part]} {new}".strip())
            text = dressed(subject, *((new, subject.held) if part == "worn" else (subject.worn, new)))
        after.append(f"{subject.side} {text}".strip())
    if not changes:
        raise RejectionError("same_again", f"nothing else is {part} in {other!r} than in {prompt!r}")
    caption = without_looks(f"{head}: {'; '.join(after)}", categories, task)
    return {EDITED: EDIT.format(changes="; ".join(changes)), CAPTION: caption}


def dressed(subject: Described, worn: str, held: str) -> str:
    """The description of a person who wears and holds something else."""
    plain, _, _ = subject.text.partition(WEARING)
    return f"{plain}{WEARING}{worn}{HOLDING + held if held else ''}"


def check_edit(instruction: str, categories: Sequence[str]) -> str:
    """An instruction in a language model's own words, which has to name at least one category.

    Raises:
        RejectionError: ``no_text`` or ``category_not_named``.
    """
    faults = []
    for category in categories:
        try:
            check_named(instruction, [category])
        except RejectionError as error:
            faults.append(error)
    if len(faults) == len(categories):
        raise faults[0]
    return instruction
