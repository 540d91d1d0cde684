"""Scores of a judge: answers to questions, scores of prompts and prompts from categories, each beside its floor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from mcpipe.curate.objects import says_yes
from mcpipe.models.scorers.judge import LARGEST, parsed
from zoo.build.captioner_scores import answers
from zoo.build.conversations import Conversation, Question
from zoo.build.judge_claims import Claim
from zoo.build.judge_conversations import EXACTLY_ONE, SHOWS, Worlds, score, scored, together, written
from zoo.build.judge_views import View, scene_of_people, scene_of_things, sentence, thing_alone
from zoo.build.training import batches

GREY = 127
TOGETHER = 16
Draw = Callable[[int, np.random.Generator], View]
Answering = Callable[[Sequence[Conversation]], list[str]]
"""Greedy answers to conversations, in order."""


@dataclass(frozen=True)
class Asked:
    """A question with its true answer."""

    conversation: Conversation
    true: bool


@dataclass(frozen=True)
class InBatches:
    """A model that answers conversations, greedily."""

    model: Qwen2_5_VLForConditionalGeneration
    processor: Qwen2_5_VLProcessor

    def __call__(self, conversations: Sequence[Conversation]) -> list[str]:
        """The answers, in order."""
        said = []
        for part in batches(len(conversations), TOGETHER):
            said += answers(self.model, self.processor, conversations[part])
        return said


def measure(answering: Answering, worlds: Worlds, total: int) -> dict[str, float]:
    """All figures, each on ``total`` images or instructions."""
    return _questions(answering, worlds, total) | _scores(answering, worlds, total) | _prompts(answering, worlds, total)


def asked_about(
    draw: Draw, template: str, total: int, rng: np.random.Generator, near_share: float = 1.0
) -> list[Asked]:
    """A true and a false question about each of ``total`` images; ``near_share`` of these are wrong in one word."""
    asked = []
    for index in range(total):
        view = draw(index, rng)
        for true in (True, False):
            claim = (
                view.realm.true_claim(view.subjects, rng)
                if true
                else view.realm.false_claim(view.subjects, rng, near_share)
            )
            while template == EXACTLY_ONE and len(claim.seats) > 1:
                claim = view.realm.true_claim(view.subjects, rng)
            text = template.format(phrase=claim.phrase)
            asked.append(Asked(one_question(view, text, claim), true))
    return asked


def one_question(view: View, text: str, claim: Claim) -> Conversation:
    """One question about an image."""
    return together(view, [(Question(text, "yes" if claim.seats else "no", None), (claim,))])


def _questions(answering: Answering, worlds: Worlds, total: int) -> dict[str, float]:
    """Shares of right answers to true and to false questions, and of those about an image without content."""
    num_things, num_people = len(worlds.things.scenes), len(worlds.people.scenes)
    draws: dict[str, tuple[Draw, str]] = {
        "shows": (lambda index, rng: scene_of_things(worlds.things, index % num_things, rng), SHOWS[0]),
        "exactly_one": (lambda index, rng: scene_of_things(worlds.things, index % num_things, rng), EXACTLY_ONE),
        "alone": (lambda index, rng: thing_alone(worlds.things, index % num_things, rng), SHOWS[0]),
        "people": (lambda index, rng: scene_of_people(worlds.people, index % num_people, rng), SHOWS[0]),
    }
    metrics = {}
    for name, (draw, template) in draws.items():
        asked = asked_about(draw, template, total, np.random.default_rng(0))
        said = [says_yes(answer) for answer in answering([each.conversation for each in asked])]
        for true in (True, False):
            right = [answer is true for answer, each in zip(said, asked, strict=True) if each.true is true]
            metrics[f"{name}_{str(true).lower()}_right"] = float(np.mean(right))
    asked = asked_about(draws["shows"][0], SHOWS[0], total, np.random.default_rng(0), 0.0)
    said = answering([each.conversation for each in asked if not each.true])
    metrics["shows_other_right"] = float(np.mean([says_yes(answer) is False for answer in said]))
    asked = asked_about(draws["shows"][0], SHOWS[0], total, np.random.default_rng(0))
    blank = [replace(each.conversation, pictures=[np.full_like(each.conversation.pictures[0], GREY)]) for each in asked]
    right = [says_yes(answer) is each.true for answer, each in zip(answering(blank), asked, strict=True)]
    shares = [metrics["shows_true_right"], metrics["shows_false_right"]]
    return metrics | {
        "questions_right": float(np.mean(shares)),
        "questions_right_always_yes": float(np.mean([each.true for each in asked])),
        "questions_right_blank": float(np.mean(right)),
    }


def _scores(answering: Answering, worlds: Worlds, total: int) -> dict[str, float]:
    """Errors of scores from 0 to 10 against those of the best constant, and mean scores of true and foreign prompts."""
    rng = np.random.default_rng(1)
    conversations = []
    num_things = len(worlds.things.scenes)
    for index in range(total):
        view = scene_of_things(worlds.things, index % num_things, rng)
        conversations.append(together(view, [score(view, worlds, rng)]))
    truth = np.array([LARGEST * float(parsed(each.answer) or 0.0) for each in conversations])
    given = [parsed(answer) for answer in answering(conversations)]
    pairs = [(score, LARGEST * value) for score, value in zip(truth, given, strict=True) if value is not None]
    errors = [abs(score - value) for score, value in pairs]
    means = {}
    for name, step in (("matched", 0), ("foreign", 1)):
        views = [scene_of_things(worlds.things, index % num_things, rng) for index in range(total)]
        asked = [together(view, [_whole(view, views[(number + step) % total])]) for number, view in enumerate(views)]
        values = [parsed(answer) for answer in answering(asked)]
        means[f"score_{name}"] = LARGEST * _mean([value for value in values if value is not None])
    return {
        "score_parsed": float(np.mean([value is not None for value in given])),
        "score_error": _mean(errors),
        "score_error_constant": float(np.mean(np.abs(truth - np.median(truth)))),
        **means,
    }


def _whole(view: View, other: View) -> tuple[Question, tuple[Claim | None, ...]]:
    """The true caption of another image, or of the same, as a prompt to score."""
    realm = view.realm
    claims = []
    for words in other.subjects:
        demands = realm.demands(words, realm.core)
        claims.append(Claim(realm.phrase(demands), demands, realm.seats(demands, view.subjects)))
    return scored(sentence(other, other.texts, other.where), claims)


def _mean(values: Sequence[float]) -> float:
    """The mean; not a number if there is nothing to average."""
    return float(np.mean(values)) if values else float("nan")


def _prompts(answering: Answering, worlds: Worlds, total: int) -> dict[str, float]:
    """Shares of written prompts that name every category in order, and that keep the given phrase."""
    rng = np.random.default_rng(2)
    conversations = [written(worlds, rng) for _ in range(total)]
    complete, kept = [], []
    for conversation, answer in zip(conversations, answering(conversations), strict=True):
        instruction = conversation.instruction
        if " all of: " in instruction:
            wanted = instruction.partition(" all of: ")[2].partition(".")[0].split(", ")
            said = answer.partition(": ")[2].split("; ")
            complete.append(len(said) == len(wanted) and all(map(_names, said, wanted)))
        else:
            phrase = instruction.partition(" that shows ")[2].partition(" alone in a new place")[0]
            kept.append(answer.endswith(f": in the middle {phrase}"))
    return {"prompt_names_all": float(np.mean(complete)), "prompt_keeps_phrase": float(np.mean(kept))}


def _names(said: str, category: str) -> bool:
    return category in said.partition(" with ")[0].split() if category != "person" else "a person" in said
