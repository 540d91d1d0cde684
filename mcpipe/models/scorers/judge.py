"""Semantic alignment by a multimodal model: a score of 0 to 10 for the aspect of a prompt that a subset is about.

It is a metric of PSRBench and, about everything that the prompt says, the semantic reward of PSR (arXiv:2512.01236).

The model is asked again, with another seed, while its answer has no valid score; after the last attempt the score is
missing, which is counted. The published scripts ask once and take 5 for an answer that they cannot parse.
"""

import re
from dataclasses import dataclass

from mcpipe.models.protocols import Captioner, Offloadable, Picture, Verdict

LARGEST = 10.0
"""Best score that the model can give."""
UNPARSED_IN_SCRIPTS = 5.0
"""Score that the published scripts take for an answer without one."""
ASPECTS = {
    "attribute": "the attributes (colour, material, size, state) of the objects",
    "action": "the actions of the objects",
    "background": "the background",
}
"""Aspect that each subset is about; the others are about everything that the prompt says."""
EVERYTHING = "everything that the prompt says"
INSTRUCTION = """Compare the image with the description below. Judge {aspect} only, and be strict.
Give a score from 0 (no match at all) to 10 (perfect match). Explain your judgement first.
Answer in exactly this format:
[Thought]: your reasons
[Score]: a number from 0 to 10

[Description]: {prompt}"""
SCORE = re.compile(r"\[Score\]:[ \t]*(\d+(?:\.\d+)?)(?:[ \t]*/[ \t]*10)?[ \t.]*(?=\n|$)")
"""A score that ends its line."""
SCORE_IN_SCRIPTS = re.compile(r"\[Score\]:\s*([\d.]+)")
"""The expression of the published scripts, whose first match counts."""


@dataclass(frozen=True)
class Judge:
    """A multimodal model with the settings of its answers."""

    model: Captioner
    temperature: float
    max_tokens: int
    attempts: int
    """Maximum number of answers to one question."""
    seed: int
    """Seed of the first attempt; each further one has the next."""

    def to_main_memory(self) -> None:
        """Move the weights to main memory, if the model can."""
        if isinstance(self.model, Offloadable):
            self.model.to_main_memory()

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs, if it can."""
        if isinstance(self.model, Offloadable):
            self.model.to_device()

    def verdict(self, picture: Picture, subset: str, prompt: str) -> Verdict:
        """The model's score of an image for the aspect of a subset."""
        instruction = INSTRUCTION.format(aspect=ASPECTS.get(subset, EVERYTHING), prompt=prompt)
        first = None
        for attempt in range(self.attempts):
            answer = self.model.answer(
                [picture],
                instruction,
                temperature=self.temperature,
                seed=self.seed + attempt,
                max_tokens=self.max_tokens,
            )
            first = answer if first is None else first
            if (score := parsed(answer)) is not None:
                return Verdict(score, parsed_by_scripts(first), attempt + 1)
        return Verdict(None, None if first is None else parsed_by_scripts(first), self.attempts)


def parsed(answer: str) -> float | None:
    """The score of an answer in [0, 1]; ``None`` unless there is exactly one, it ends its line and is at most 10."""
    scores = [float(score) for score in SCORE.findall(answer)]
    if len(scores) != 1 or answer.count("[Score]") != 1 or scores[0] > LARGEST:
        return None
    return scores[0] / LARGEST


def parsed_by_scripts(answer: str) -> float | None:
    """The score by the published scripts over 10: 0.5 without a number; ``None`` where they fail and drop a sample."""
    match = SCORE_IN_SCRIPTS.search(answer)
    try:
        return (UNPARSED_IN_SCRIPTS if match is None else float(match[1])) / LARGEST
    except ValueError:
        return None
