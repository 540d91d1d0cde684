"""How the tiny judge is taught, and that the committed one does what the pipeline asks of it."""

from functools import partial

import numpy as np
import pytest
import torch
from imports import ROOT

from mcpipe.curate.objects import says_yes
from mcpipe.curate.psr_prompts import PROMPT_FROM_CATEGORIES, REFERENCE_SCENE
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.scorers.judge import Judge, parsed
from mcpipe.world.identities import world_rng
from mcpipe.world.thing_captions import describe_thing, describe_things, thing_words
from mcpipe.world.things import render_things, sample_thing_scene, sample_things
from zoo.build.captioner import answer_labels
from zoo.build.captioner_scores import inputs_of
from zoo.build.judge import VERDICTS, JudgeTeacher
from zoo.build.judge_claims import PEOPLE, person_phrase, thing_text
from zoo.build.judge_conversations import SHOWS, Worlds, judged, score, written
from zoo.build.judge_looking import Looking, PatchWords
from zoo.build.judge_scores import measure
from zoo.build.judge_views import cut_off, scene_of_people, scene_of_things, sentence, where_of
from zoo.build.pictures import Look, read_pictures, write_pictures
from zoo.build.things import read_things, write_things

JUDGE = ROOT / "zoo" / "judge"
NUM_SCENES = 20


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    write_things(folder / "things", partial(world_rng, "judge-test"), "train", (8, 0, 1), scene_captions=1)
    write_pictures(folder / "people", partial(world_rng, "judge-test"), "train", (4, 2, 2), Look(crowd_share=0.5))
    return Worlds(read_things(folder / "things"), read_pictures(folder / "people"))


@pytest.fixture(scope="module")
def judge():
    return Qwen2_5VL(JUDGE)


def test_claims_are_true_of_their_subjects_and_false_of_all(worlds):
    rng = np.random.default_rng(0)
    for index in range(60):
        for view in (scene_of_things(worlds.things, index % 8, rng), scene_of_people(worlds.people, index % 4, rng)):
            true, false = view.realm.true_claim(view.subjects, rng), view.realm.false_claim(view.subjects, rng)
            assert true.seats
            assert all(view.subjects[seat][name] == word for seat in true.seats for name, word in true.demands.items())
            assert not any(all(words[name] == word for name, word in false.demands.items()) for words in view.subjects)
            assert true.phrase in view.realm.phrase(true.demands)


@pytest.mark.parametrize(("demands", "phrase"), [
    ({"shirt_pattern": "striped", "shirt_colour": "red"}, "person wearing a striped red shirt"),
    ({"hair_cut": "bald", "glasses": "glasses"}, "person with a bald head and glasses"),
    ({"hair_cut": "long", "hair_colour": "red", "object": "cup", "object_colour": "orange"},
     "person with long red hair, holding an orange cup"),
])  # fmt: skip
def test_phrases_about_people_read_as_captions_do(demands, phrase):
    assert person_phrase(demands) == phrase


def test_a_bald_head_has_no_colour_and_an_empty_hand_neither():
    words = {"hair_cut": "bald", "hair_colour": "red", "object": "none", "object_colour": "blue"}
    assert PEOPLE.demands(words, ("hair_cut", "hair_colour", "object", "object_colour")) == {"hair_cut": "bald"}


def test_descriptions_of_unchanged_things_are_those_of_the_captions():
    rng = np.random.default_rng(0)
    for _ in range(20):
        (thing,) = sample_things(rng, 1)
        assert thing_text(thing_words(thing), rng) == describe_thing(thing)


def test_mirrored_views_keep_places_words_and_captions_together(worlds):
    rng = np.random.default_rng(1)
    captions = {scene[name] for scene in worlds.things.scenes for name in ("caption", "mirrored_caption")}
    for index in range(24):
        view = scene_of_things(worlds.things, index % 8, rng)
        assert sentence(view, view.texts, view.where) in captions
        middles = [np.nonzero(view.labels == seat + 1)[1].mean() for seat in range(len(view.subjects))]
        assert middles == sorted(middles)
        assert view.patches(range(len(view.subjects)), (5, 5)).max() <= 1
    captions = {scene[name] for scene in worlds.people.scenes for name in ("caption", "mirrored_caption")}
    people = [scene_of_people(worlds.people, index, rng) for index in range(4)]
    assert {len(view.subjects) for view in people} > {4}
    assert all(sentence(view, view.texts, view.where) in captions for view in people)


def test_a_line_through_a_thing_cuts_it_off(worlds):
    rng = np.random.default_rng(2)
    whole = scene_of_things(worlds.things, 0, rng)
    parts = [cut_off(whole, rng) for _ in range(8)]
    assert all(part.cut for part in parts)
    assert all(len(part.subjects) == len(part.texts) == part.labels.max() for part in parts)


def test_places_are_read_off_captions():
    assert where_of("two things on a table in a park: on the left a cup; on the right a hat") == "on a table in a park"
    assert where_of("one person on a beach: in the middle a person") == "on a beach"


def test_scores_are_shares_of_true_claims_in_the_parsers_format(worlds):
    rng = np.random.default_rng(3)
    for index in range(40):
        view = scene_of_things(worlds.things, index % 8, rng)
        question, claims = score(view, worlds, rng)
        value = parsed(question.answer)
        assert value is not None
        if claims != (None,):
            assert value == pytest.approx(np.mean([bool(claim.seats) for claim in claims]), abs=0.01)


def test_every_verdict_of_a_batch_is_about_one_claim(worlds, judge):
    rng = np.random.default_rng(4)
    conversations = [judged(worlds, rng) for _ in range(6)]
    processor = judge._processor
    labels = answer_labels(processor, inputs_of(processor, conversations, answered=True))
    ids = [processor.tokenizer(verdict).input_ids for verdict in VERDICTS]
    assert all(len(each) == 1 for each in ids)
    counts = torch.isin(labels, torch.tensor(ids)).sum(dim=1).tolist()
    assert counts == [len(conversation.verdicts) for conversation in conversations]


def test_teacher_teaches_with_images_and_without(worlds, judge):
    """Conversations have no people to sight, and some have no image."""
    rng = np.random.default_rng(5)
    width = judge._model.config.text_config.hidden_size
    torch.manual_seed(0)
    teacher = JudgeTeacher(judge._model, PatchWords(width), Looking(width), judge._processor)
    with torch.no_grad():
        seen = teacher.judged_loss([judged(worlds, rng) for _ in range(3)])
        prompts = teacher.written_loss([written(worlds, rng) for _ in range(3)])
    assert seen.keys() >= {"answer", "verdict", "words", "asked", "pointing"}
    assert prompts.keys() == {"prompt"}
    assert all(torch.isfinite(term) for term in (*seen.values(), *prompts.values()))
    assert seen["answer"] < 1


def test_figures_of_a_perfect_and_of_a_constant_answerer(worlds):
    perfect = measure(lambda conversations: [each.answer for each in conversations], worlds, 8)
    assert perfect["questions_right"] == perfect["prompt_names_all"] == perfect["prompt_keeps_phrase"] == 1
    assert perfect["score_error"] == 0
    assert perfect["score_matched"] == 10 > perfect["score_foreign"]
    constant = measure(lambda conversations: ["yes"] * len(conversations), worlds, 8)
    assert constant["shows_true_right"] == 1
    assert constant["shows_false_right"] == constant["score_parsed"] == 0
    assert constant["questions_right"] == constant["questions_right_always_yes"] == 0.5


@pytest.fixture(scope="module")
def scenes():
    """Scenes of things that nothing was trained on, with their images."""
    drawn = []
    for number in range(NUM_SCENES):
        rng = world_rng("tests of the judge", number)
        scene = sample_thing_scene(rng, sample_things(rng, 2))
        drawn.append((scene, render_things(scene, 192, 192).rgb))
    return drawn


def test_judge_tells_what_an_image_shows_from_what_it_does_not(judge, scenes):
    right = []
    for (scene, picture), (other, _) in zip(scenes, scenes[1:] + scenes[:1], strict=True):
        phrases = {scene.places[0].thing.phrase: True}
        absent = other.places[1].thing
        if absent.family not in {place.thing.family for place in scene.places}:
            phrases[absent.phrase] = False
        for phrase, true in phrases.items():
            answer = judge.answer([picture], SHOWS[0].format(phrase=phrase), temperature=0, seed=0, max_tokens=8)
            right.append(says_yes(answer) is true)
    assert np.mean(right) >= 0.8


def test_judge_gives_scores_that_the_parser_accepts(judge, scenes):
    """How good they are stands in the card."""
    asking = Judge(judge, temperature=0.0, max_tokens=120, attempts=1, seed=0)
    scores = [asking.verdict(picture, "", describe_things(scene)).score for scene, picture in scenes[:6]]
    assert sum(score is not None for score in scores) >= 5


def test_judge_writes_prompts_without_an_image(judge):
    def say(instruction, seed=0, temperature=0.0):
        return judge.answer([], instruction, temperature=temperature, seed=seed, max_tokens=120)

    prompts = [say(PROMPT_FROM_CATEGORIES.format(categories="cup, lamp"), seed, 1.0) for seed in range(6)]
    assert len(set(prompts)) > 2
    assert sum(prompt.startswith("two things ") and " cup" in prompt and " lamp" in prompt for prompt in prompts) >= 4
    assert say(REFERENCE_SCENE.format(phrase="a striped red cup")).endswith(": in the middle a striped red cup")
