"""Training data of the judge: questions and scores about images, and prompts from categories without one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcpipe.curate.psr_prompts import PROMPT_FROM_CATEGORIES, REFERENCE_SCENE
from mcpipe.models.scorers.judge import ASPECTS, EVERYTHING, INSTRUCTION, LARGEST
from mcpipe.world.thing_captions import with_article
from zoo.build.conversations import Conversation, Question
from zoo.build.judge_claims import THINGS, Claim, Words, hair_text, shirt_text, thing_text
from zoo.build.judge_views import View, cut_off, scene_of_people, scene_of_things, sentence, thing_alone
from zoo.build.pictures import Pictures
from zoo.build.things import ThingPictures

SHOWS = (
    "Does this picture clearly show {phrase}? Answer yes or no.",
    "Does the image show {phrase}? Answer yes or no.",
)
"""Questions whether a subject is in an image; the first one filters rows of objects."""

EXACTLY_ONE = "Is there exactly one {phrase} in this picture, whole and not cut off? Answer yes or no."
"""The other question that filters rows of objects at paper scale."""

NUM_QUESTIONS, NUM_BESIDE_SCORE = 8, 2
"""Number of questions about one image in a sequence, and of those beside a score, which is as long as the others."""

SCORES_SHARE = 0.25
"""Share of scenes about which a score is asked."""

VIEW_SHARES = {"things": 0.62, "alone": 0.2, "people": 0.18}
"""Kinds of images."""

CUT_SHARE = 0.12
"""Share of scenes of things that are cut off."""

ARTICLE_SHARE = 0.4
"""Share of phrases in questions that begin with an article."""

NAMED_SHARE = 0.35
"""Share of the prompts to score that only name things."""

BACKGROUND_SHARE = 0.15
"""Share of scores that are about the background."""

EXTRA_SHARE = 0.3
"""Share of prompts to score that name a subject more than the image shows, if three are not exceeded."""

CATEGORIES_SHARE = 0.4
"""Share of prompts from categories among those; the others show one subject, whose phrase is to be kept."""

PEOPLE_SHARE = 0.25
"""Share of prompts about people among those that are written."""


@dataclass(frozen=True)
class Judged(Conversation):
    """A conversation whose answers hold verdicts about an image."""

    view: View | None = None
    verdicts: tuple[Claim | None, ...] = ()
    """What each "yes" or "no" in the answers is about, in order; ``None`` if it is about no subject."""


@dataclass(frozen=True)
class Worlds:
    """The image sets of both realms."""

    things: ThingPictures
    people: Pictures


def judged(worlds: Worlds, rng: np.random.Generator) -> Judged:
    """Questions about an image and, for many scenes, a score."""
    view = draw_view(worlds, rng)
    scores = bool(view.where) and not view.cut and rng.random() < SCORES_SHARE
    asked = [question(view, rng) for _ in range(NUM_BESIDE_SCORE if scores else NUM_QUESTIONS)]
    asked += [score(view, worlds, rng)] if scores else []
    return together(view, [asked[int(place)] for place in rng.permutation(len(asked))])


def together(view: View, asked: Sequence[tuple[Question, tuple[Claim | None, ...]]]) -> Judged:
    """Everything that is asked about one image as a conversation."""
    questions = tuple(question for question, _ in asked)
    verdicts = tuple(claim for _, claims in asked for claim in claims)
    return Judged([view.picture], questions[0].text, questions[0].answer, [], None, questions, view, verdicts)


def draw_view(worlds: Worlds, rng: np.random.Generator) -> View:
    """An image of some kind."""
    kind = str(rng.choice(list(VIEW_SHARES), p=list(VIEW_SHARES.values())))
    if kind == "people":
        return scene_of_people(worlds.people, int(rng.integers(len(worlds.people.scenes))), rng)
    index = int(rng.integers(len(worlds.things.scenes)))
    if kind == "alone":
        return thing_alone(worlds.things, index, rng)
    view = scene_of_things(worlds.things, index, rng)
    return cut_off(view, rng) if rng.random() < CUT_SHARE else view


def question(view: View, rng: np.random.Generator) -> tuple[Question, tuple[Claim | None, ...]]:
    """A question about a subject, as often true as false, with what its verdict is about."""
    claim = (
        view.realm.true_claim(view.subjects, rng) if rng.random() < 0.5 else view.realm.false_claim(view.subjects, rng)
    )
    only = rng.random() < 0.35
    cut = set(claim.seats) & set(view.cut)
    if cut and not only:
        only = True
    article = not only and rng.random() < ARTICLE_SHARE
    template = EXACTLY_ONE if only else SHOWS[int(rng.random() < 0.3)]
    true = len(claim.seats) == 1 and not cut if only else bool(claim.seats)
    text = template.format(phrase=with_article(claim.phrase) if article else claim.phrase)
    return Question(text, "yes" if true else "no", None), (claim,)


def score(view: View, worlds: Worlds, rng: np.random.Generator) -> tuple[Question, tuple[Claim | None, ...]]:
    """A prompt to score, some of whose subjects are in the image."""
    if rng.random() < BACKGROUND_SHARE:
        return _background_score(view, worlds, rng)
    total = len(view.subjects)
    named = view.realm is THINGS and rng.random() < NAMED_SHARE
    kept = int(rng.integers(total + 1))
    seats = set(rng.permutation(total)[:kept].tolist())
    items = [_item(view, seat, seat in seats, named, rng) for seat in range(total)]
    if total < 3 and rng.random() < EXTRA_SHARE:
        items.insert(int(rng.integers(total + 1)), _item(view, 0, False, named, rng))
    aspect = EVERYTHING if rng.random() < 0.8 else ASPECTS["attribute" if rng.random() < 0.7 else "action"]
    return scored(_prompt(view, [text for text, _ in items], named, rng), [claim for _, claim in items], aspect)


def scored(prompt: str, claims: Sequence[Claim], aspect: str = EVERYTHING) -> tuple[Question, tuple[Claim | None, ...]]:
    """The score of a prompt: 10 times the share of its claims that are true, to one decimal."""
    share = float(np.mean([bool(claim.seats) for claim in claims]))
    thought = ", ".join(f"{claim.phrase}: {'yes' if claim.seats else 'no'}" for claim in claims)
    return Question(INSTRUCTION.format(aspect=aspect, prompt=prompt), thought_and_score(thought, share), None), (
        *claims,
    )


def thought_and_score(thought: str, share: float) -> str:
    """An answer in the form that the judge's parser accepts."""
    return f"[Thought]: {thought}\n[Score]: {round(LARGEST * share, 1):g}"


def written(worlds: Worlds, rng: np.random.Generator) -> Conversation:
    """An instruction to write a prompt, without an image."""
    people = rng.random() < PEOPLE_SHARE
    scenes = worlds.people.scenes if people else worlds.things.scenes
    scene = scenes[int(rng.integers(len(scenes)))]
    invented = scene["invented"][int(rng.integers(len(scene["invented"])))]
    if rng.random() < CATEGORIES_SHARE:
        names = ["person"] * len(scene["people"]) if people else scene["names"]
        return _text_only(PROMPT_FROM_CATEGORIES.format(categories=", ".join(names)), invented)
    head, _, said = invented.partition(": ")
    count, _, where = head.partition(" ")[2].partition(" ")
    del count
    described = said.split("; ")[0]
    for side in ("on the left ", "in the middle "):
        described = described.removeprefix(side)
    if not people and rng.random() < 0.6:
        described = with_article(scene["phrases" if rng.random() < 0.6 else "names"][0])
    noun = "person" if people else "thing"
    return _text_only(REFERENCE_SCENE.format(phrase=described), f"one {noun} {where}: in the middle {described}")


def _text_only(instruction: str, answer: str) -> Conversation:
    return Conversation([], instruction, answer, [])


def _item(view: View, seat: int, true: bool, named: bool, rng: np.random.Generator) -> tuple[str, Claim]:
    """What a prompt says of a subject, and what a verdict on it is about."""
    realm, words = view.realm, view.subjects[seat]
    names = ("family",) if named else realm.core
    changed: Words | None = words
    if not true:
        changed = None
        while changed is None:
            changed = realm.changed_words(view.subjects, names, rng, seat)
            if realm.possible(realm.demands(changed, names), view.subjects):
                changed = None
    assert changed is not None
    demands = realm.demands(changed, names)
    claim = Claim(realm.phrase(demands), demands, realm.seats(demands, view.subjects))
    if named:
        return with_article(words["family"] if true else changed["family"]), claim
    if true:
        return view.texts[seat], claim
    if realm is THINGS:
        return thing_text(changed, rng), claim
    text = view.texts[seat].replace(hair_text(words), hair_text(changed))
    return text.replace(shirt_text(words), shirt_text(changed)), claim


def _prompt(view: View, texts: Sequence[str], named: bool, rng: np.random.Generator) -> str:
    """A prompt in one of the two forms of captions."""
    if not named or rng.random() < 0.5:
        return sentence(view, texts, view.where)
    listed = " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    return f"{listed} {view.where}"


def _background_score(
    view: View, worlds: Worlds, rng: np.random.Generator
) -> tuple[Question, tuple[Claim | None, ...]]:
    """A prompt to score by its place alone."""
    scenes = worlds.things.scenes if view.realm is THINGS else worlds.people.scenes
    where = view.where
    if rng.random() < 0.5:
        while where == view.where:
            caption = scenes[int(rng.integers(len(scenes)))]["caption"]
            where = caption.partition(":")[0].partition(" ")[2].partition(" ")[2]
    true = where == view.where
    prompt = sentence(view, view.texts, where)
    answer = thought_and_score(f"{where}: {'yes' if true else 'no'}", float(true))
    return Question(INSTRUCTION.format(aspect=ASPECTS["background"], prompt=prompt), answer, None), (None,)
