"""What is rewarded where subjects are objects: found by name, compared by their looks, each counted once."""

import numpy as np
import pytest
from fake_scorers import Encoder, Scorer

from mcpipe.models.protocols import Faces
from mcpipe.train.rl.rewards import FaceScorer, ObjectScorer, Prompt, ScorerError, Scorers, heldout_identity, rewards

NAMES = {"a red mug": (250, 0, 0), "a green bag": (0, 250, 0), "a blue hat": (0, 0, 250)}


class Detector:
    """Finds spots of the named colours, the last ones first."""

    def __init__(self):
        self.searched = []

    def crops(self, picture, names):
        self.searched.append(tuple(names))
        return [
            picture[y : y + 1, x : x + 1]
            for y, x in reversed([*np.ndindex(picture.shape[:2])])
            if any(tuple(picture[y, x]) == NAMES[name] for name in names)
        ]


class Broken(Detector):
    def crops(self, picture, names):
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


def identity_rewards(pictures, required, matching="hungarian", detector=None):
    scorer = ObjectScorer(detector or Detector(), Encoder())
    return rewards(Scorers(scorer, Encoder(), Scorer(), scorer), pictures, required, matching)["identity"].tolist()


MUG, BAG, HAT = NAMES


def test_objects_are_matched_one_to_one_and_missing_ones_count_zero():
    required = prompt(MUG, BAG)
    nothing, single, both, turned, twice = (
        picture(), picture(MUG), picture(MUG, BAG), picture(BAG, MUG), picture(MUG, MUG)
    )  # fmt: skip
    rewards = identity_rewards([nothing, single, both, turned, twice], required)
    assert rewards[:4] == pytest.approx([0, 0.5, 1, 1], abs=1e-6)
    assert rewards[4] == pytest.approx(0.5, abs=0.01), "a second mug is no bag"
    assert identity_rewards([single], required, "row_max")[0] == pytest.approx(0.5, abs=0.01)


def test_a_detector_is_asked_for_the_prompts_own_objects_alone():
    detector = Detector()
    assert identity_rewards([picture(HAT, MUG)], prompt(MUG), detector=detector) == pytest.approx([1])
    assert detector.searched == [(MUG,)]


def test_a_detector_that_fails_drops_the_group_by_name():
    with pytest.raises(ScorerError, match="identity_failed"):
        identity_rewards([picture(MUG)], prompt(MUG), detector=Broken())


def test_the_held_out_scorer_may_be_of_another_kind():
    class Analyser:
        name = "one"

        def faces(self, picture):
            return Faces(np.zeros((1, 4)), np.ones(1), np.zeros((1, 5, 2)), Encoder().pictures([picture[:1, :1]]))

    scorers = Scorers(ObjectScorer(Detector(), Encoder()), Encoder(), Scorer(), FaceScorer(Analyser()))
    required = prompt(MUG, BAG)
    assert rewards(scorers, [picture(MUG, BAG)], required, "hungarian")["identity"].item() == pytest.approx(1)
    assert heldout_identity(scorers, [picture(MUG, BAG)], required).item() == pytest.approx(0.5)
