"""What is rewarded where subjects are objects: found by name, compared by their looks, each counted once."""

from dataclasses import replace

import numpy as np
import pytest
from fake_scorers import Encoder, Scorer
from imports import ROOT

from mcpipe.models.protocols import Faces, Offloadable
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.train.rl.rewards import FaceScorer, ObjectScorer, Prompt, ScorerError, Scorers, heldout_identity, rewards

NAMES = {"a red mug": (250, 0, 0), "a green bag": (0, 250, 0), "a blue hat": (0, 0, 250)}


class Detector:
    """Finds spots of a named colour, the last ones first; may take other colours for it."""

    def __init__(self, **mistaken):
        self.searched, self.mistaken = [], mistaken

    def crops(self, picture, phrase):
        self.searched.append(phrase)
        colours = [NAMES[name] for name in (phrase, *self.mistaken.get(phrase.split()[-1], ()))]
        return [
            picture[y : y + 1, x : x + 1]
            for y, x in reversed([*np.ndindex(picture.shape[:2])])
            if tuple(picture[y, x]) in colours
        ]


class Broken(Detector):
    def crops(self, picture, phrase):
        raise RuntimeError("no such phrase")


def picture(*spots):
    """Spots on white ground."""
    drawn = np.full((2, 4, 3), 255, np.uint8)
    for place, name in enumerate(spots):
        drawn[0, place] = NAMES[name]
    return drawn


def prompt(*names):
    """About objects of these names."""
    references = np.stack([np.full((1, 1, 3), NAMES[name], np.uint8) for name in names])
    embeddings = Encoder().pictures(references)
    return Prompt("p", "things on a table", references, embeddings, embeddings, names)


def identity_rewards(pictures, pair, matching="hungarian", detector=None):
    scorer = ObjectScorer(detector or Detector(), Encoder())
    return rewards(Scorers(scorer, Encoder(), Scorer(), scorer), pictures, pair, matching)["identity"].tolist()


MUG, BAG, HAT = NAMES


def test_objects_are_matched_one_to_one_and_missing_ones_count_zero():
    pair = prompt(MUG, BAG)
    nothing, single, both, turned, twice = (
        picture(), picture(MUG), picture(MUG, BAG), picture(BAG, MUG), picture(MUG, MUG)
    )  # fmt: skip
    rewards = identity_rewards([nothing, single, both, turned, twice], pair)
    assert rewards[:4] == pytest.approx([0, 0.5, 1, 1], abs=1e-6)
    assert rewards[4] == pytest.approx(0.5, abs=1e-6), "a second mug is no bag"
    assert identity_rewards([single], pair, "row_max")[0] == pytest.approx(0.5, abs=0.01)


def test_a_detector_is_asked_for_the_prompts_own_objects_alone():
    detector = Detector()
    assert identity_rewards([picture(HAT, MUG)], prompt(MUG), detector=detector) == pytest.approx([1])
    assert detector.searched == [MUG]


def similar_objects(similar):
    """Two references that look alike, by their names, and a prompt about them."""
    pair = prompt(MUG, BAG)
    embeddings = np.stack([pair.embeddings[0], pair.embeddings[0] if similar else pair.embeddings[1]])
    return replace(pair, embeddings=embeddings)


def test_an_object_is_located_by_its_own_phrase_and_no_other():
    """Two references that look alike: the bag is missing, and a second mug that looks like it is no bag."""
    alike = similar_objects(similar=True)
    assert identity_rewards([picture(MUG, MUG)], alike) == pytest.approx([0.5])
    assert identity_rewards([picture(MUG, MUG)], alike, "row_max") == pytest.approx([0.5])
    assert identity_rewards([picture(MUG, BAG)], similar_objects(similar=False)) == pytest.approx([1])


def test_references_of_one_phrase_share_what_it_finds_one_to_one():
    pair = replace(prompt(MUG, BAG), names=("a red mug", "a red mug"))
    detector = Detector(mug=[BAG])
    assert identity_rewards([picture(BAG, MUG)], pair, detector=detector) == pytest.approx([1])
    assert detector.searched == [MUG], "searched once"
    single = identity_rewards([picture(MUG)], pair, detector=Detector(mug=[BAG]))
    assert single == pytest.approx([0.5], abs=0.01), "one object is one reference"


def test_a_subject_without_a_phrase_drops_the_group_by_name():
    with pytest.raises(ScorerError, match="prompt p has 2 subjects and 1 names"):
        identity_rewards([picture(MUG)], replace(prompt(MUG, BAG), names=(MUG,)))


def test_a_detector_that_fails_drops_the_group_by_name():
    with pytest.raises(ScorerError, match="identity_failed"):
        identity_rewards([picture(MUG)], prompt(MUG), detector=Broken())


def test_the_held_out_scorer_may_be_of_another_kind():
    class Analyser:
        name = "one"

        def faces(self, picture):
            return Faces(np.zeros((1, 4)), np.ones(1), np.zeros((1, 5, 2)), Encoder().pictures([picture[:1, :1]]))

    scorers = Scorers(ObjectScorer(Detector(), Encoder()), Encoder(), Scorer(), FaceScorer(Analyser()))
    pair = prompt(MUG, BAG)
    assert rewards(scorers, [picture(MUG, BAG)], pair, "hungarian")["identity"].item() == pytest.approx(1)
    assert heldout_identity(scorers, [picture(MUG, BAG)], pair).item() == pytest.approx(0.5)


class Resting(Encoder):
    """Answers only while it is on its device."""

    def __init__(self):
        self.is_awake, self.moves = True, 0

    def to_device(self):
        self.is_awake, self.moves = True, self.moves + 1

    def to_main_memory(self):
        self.is_awake = False

    def pictures(self, pictures):
        assert self.is_awake, "a model in main memory was used"
        return super().pictures(pictures)


def test_reward_models_rest_while_they_score_nothing_and_score_alike():
    pair, resting = prompt(MUG, BAG), Resting()
    scorers = Scorers(ObjectScorer(Detector(), Encoder()), resting, Scorer(), ObjectScorer(Detector(), Encoder()))
    expected = rewards(scorers, [picture(MUG)], pair, "hungarian")
    offloaded = scorers.offloaded()
    assert not resting.is_awake
    with offloaded.awake():
        scores = rewards(offloaded, [picture(MUG)], pair, "hungarian")
    assert {name: score.tolist() for name, score in scores.items()} == {n: s.tolist() for n, s in expected.items()}
    assert (resting.is_awake, resting.moves) == (False, 1)
    with pytest.raises(ScorerError), offloaded.awake():
        rewards(offloaded, [picture(MUG)], replace(pair, names=()), "hungarian")
    assert not resting.is_awake, "also after a fault"


def test_the_zoos_reward_models_can_rest():
    clip, hps = Clip(ROOT / "zoo" / "clip"), HpsV2_1(ROOT / "zoo" / "hps")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    before = clip.pictures([image]), hps.scores([image], ["a person"])
    for model in (clip, hps):
        assert isinstance(model, Offloadable)
        model.to_main_memory()
        model.to_device()
    assert np.array_equal(clip.pictures([image]), before[0])
    assert np.array_equal(hps.scores([image], ["a person"]), before[1])
