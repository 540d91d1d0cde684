"""Scores of the judge, asked as the pipeline asks it."""

from collections.abc import Sequence

from mcpipe.models.captioner import Qwen2_5VL
from zoo.build.conversations import Conversation
from zoo.build.judge_conversations import Worlds
from zoo.build.judge_scores import measure as measure_answers
from zoo.scores.draw import Job
from zoo.scores.figures import Figure
from zoo.scores.pictures import drawn_pictures
from zoo.scores.things import drawn_things

NUM_ASKED = 120
MAX_TOKENS = 120
"""Longest answer in tokens: more than any of the grammar's."""
BARS = {"questions_right": 0.9, "score_parsed": 0.95, "prompt_names_all": 0.9}
"""Our own, of the figures of the card."""


def measure(job: Job) -> list[Figure]:
    """Ask about freshly drawn scenes, and have prompts written."""
    judge = Qwen2_5VL(job.zoo / "judge")

    def answering(conversations: Sequence[Conversation]) -> list[str]:
        return [
            judge.answer(each.pictures, each.instruction, temperature=0.0, seed=0, max_tokens=MAX_TOKENS)
            for each in conversations
        ]

    worlds = Worlds(drawn_things(job.seed), drawn_pictures(job.seed))
    return [
        Figure(name, value, NUM_ASKED, "scenes or prompts", BARS.get(name), ours=True)
        for name, value in measure_answers(answering, worlds, NUM_ASKED).items()
    ]
