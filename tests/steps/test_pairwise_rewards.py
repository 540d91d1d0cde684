"""References of objects as the pairwise reward of PSR sees them."""

from types import SimpleNamespace

import numpy as np
import pytest
from object_fixtures import ColourGrounder, scene
from synthetic_fixtures import MeanColour

from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing
from mcpipe.core.shards import write_shards
from mcpipe.objectives.reward import identity_reward
from mcpipe.steps.pairwise_rewards import PairwisePrompts
from mcpipe.train.rl.rewards import PairwiseScorer

SPEC = SimpleNamespace(reference_size=48)
SCORER = PairwiseScorer(ColourGrounder(), MeanColour())


def prompts_in(folder, *things):
    pool = [PoolThing(key=phrase.split()[0], phrase=phrase, reference=picture) for phrase, picture in things]
    write_shards(pool, folder / "rl_things", 8)
    write_shards([PairPrompt(key="a", prompt="two boxes", names=tuple(t.key for t in pool))], folder / "rl", 8)
    return PairwisePrompts(folder, SCORER, SCORER)


def test_a_picture_is_compared_subject_by_subject_with_its_own_references(tmp_path):
    red, blue = scene(("red", 8, 8, 40, 40)), scene(("blue", 8, 8, 40, 40))
    (prompt,), facts = prompts_in(tmp_path, ("blue box", blue), ("red box", red))(SPEC)
    assert facts == {"references_not_located": []}
    assert prompt.names == ("blue box", "red box")
    both = scene(("red", 2, 2, 20, 20), ("blue", 26, 26, 44, 44))
    similarity = SCORER.similarity(both, prompt, prompt.embeddings)
    assert identity_reward(similarity, "by_name") == pytest.approx(1, abs=1e-3)
    alone = SCORER.similarity(scene(("red", 2, 2, 20, 20)), prompt, prompt.embeddings)
    assert identity_reward(alone, "by_name") == pytest.approx(0.5, abs=1e-3)


def test_a_reference_without_its_subject_is_named_and_counts_nothing(tmp_path):
    empty, red = scene(("yellow", 8, 8, 40, 40)), scene(("red", 8, 8, 40, 40))
    (prompt,), facts = prompts_in(tmp_path, ("blue box", empty), ("red box", red))(SPEC)
    assert facts == {"references_not_located": ["blue"]}
    assert not prompt.embeddings[0].any()
    both = scene(("red", 2, 2, 20, 20), ("blue", 26, 26, 44, 44))
    similarity = SCORER.similarity(both, prompt, prompt.embeddings)
    np.testing.assert_allclose(np.diag(similarity), [0, 1], atol=1e-3)


def test_references_of_another_size_and_no_prompts_are_one_line(tmp_path):
    reader = prompts_in(tmp_path / "some", ("red box", scene(("red", 8, 8, 40, 40))))
    with pytest.raises(ValueError, match="measure 48 px, but the adapter was trained with 16 px"):
        reader(SimpleNamespace(reference_size=16))
    with pytest.raises(ValueError, match="no prompts in .*; see the report of the stage prompts"):
        prompts_in(tmp_path / "none")(SPEC)
