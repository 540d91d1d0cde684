"""What a visitor of the page asks for, checked before anything is drawn; every fault is one line for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcpipe.cli.generate import SEEDS
from mcpipe.flux.adapters import SPEC_FILE

BASE = "base"
"""Name of the generator without an adapter among the arms."""
MOST_REFERENCES = 4
MOST_BYTES = 20 * 2**20
"""Maximum size of an uploaded file."""
MOST_STEPS, MOST_GUIDANCE, MOST_LETTERS = 50, 20.0, 2000
"""Limits of steps and guidance, and of the letters of a prompt."""


@dataclass(frozen=True)
class DemoRequest:
    """Images to draw: one per arm, all from the same noise."""

    references: tuple[Path, ...]
    """Image files of one face each."""
    prompt: str
    seed: int
    num_steps: int
    guidance: float
    arms: tuple[str, ...]
    """Names of adapters, or `BASE`."""


def checked(  # noqa: PLR0913  one argument per input of the page
    references: Sequence[Path], prompt: str, seed: float | None, num_steps: float, guidance: float, arms: Sequence[str]
) -> DemoRequest:
    """The request of these inputs.

    Raises:
        ValueError: there is no reference or there are too many, a file is too large, the prompt is empty or too long,
            a number is out of range, or no arm is chosen.
    """
    check_references(references)
    if not references:
        raise ValueError("no reference; upload a portrait or choose one from the gallery")
    if not prompt.strip():
        raise ValueError("the prompt is empty; describe the picture and everybody in it")
    if len(prompt) > MOST_LETTERS:
        raise ValueError(f"the prompt has {len(prompt)} letters; {MOST_LETTERS} are possible")
    if seed is None or seed != int(seed) or int(seed) not in SEEDS:
        raise ValueError(f"a seed should be a whole number from {SEEDS[0]} to {SEEDS[-1]}, not {seed}")
    if num_steps != int(num_steps) or not 1 <= num_steps <= MOST_STEPS:
        raise ValueError(f"steps should be a whole number from 1 to {MOST_STEPS}, not {num_steps}")
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ValueError(f"guidance should be from 0 to {MOST_GUIDANCE:g}, not {guidance}")
    if not arms:
        raise ValueError("no adapter is chosen; choose at least one, or base")
    return DemoRequest(tuple(references), prompt.strip(), int(seed), int(num_steps), float(guidance), tuple(arms))


def check_references(references: Sequence[Path]) -> None:
    """Check the number and the sizes of reference images.

    Raises:
        ValueError: there are too many, or a file is too large or gone.
    """
    if len(references) > MOST_REFERENCES:
        raise ValueError(f"{len(references)} references; at most {MOST_REFERENCES} are possible")
    for file in references:
        if not file.is_file():
            raise ValueError(f"the reference {file.name} is no longer there; upload it again")
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"{file.name} is larger than {MOST_BYTES // 2**20} MB; upload a smaller picture")


def adapters_in(folder: Path) -> dict[str, Path]:
    """The folders of adapters below a folder, by name, in alphabetical order."""
    return {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{SPEC_FILE}"))}
