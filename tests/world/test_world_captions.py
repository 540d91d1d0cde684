"""Captions of the scene: place, clothes and actions, and nothing of the people beyond one cue."""

import numpy as np

from mcpipe.curate.captions import TRAITS, SentenceParams, caption_fault, describes_people, mentioned_traits
from mcpipe.world.captions import describe_outfit, describe_scene, describe_setting
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import sample_scene

SENTENCE = SentenceParams(min_words=8, max_words=80, attempts=1, temperature=0.0, max_tokens=120, seed=0)
TOTAL = 300


def scenes():
    for number in range(TOTAL):
        rng = world_rng("tests of captions", number)
        yield sample_scene(rng, [sample_identity(rng) for _ in range(2)]), rng


def test_captions_of_the_scene_leak_nobody_and_captions_of_people_do():
    of_scene, of_people, cues = [], [], []
    for scene, rng in scenes():
        caption = describe_setting(scene, rng)
        of_scene.append(describes_people(caption))
        of_people.append(describes_people(describe_scene(scene)))
        traits = mentioned_traits(caption)
        assert len(traits) == 2
        cues += [len(of_one) for of_one in traits]
        assert not any(mentioned_traits(describe_setting(scene, rng, cue_share=0.0)))
    assert np.mean(of_scene) <= 0.01
    assert np.mean(of_people) >= 0.99
    assert abs(np.mean(cues) - 0.5) < 0.05


def test_captions_of_the_scene_tell_clothes_in_any_order_with_sides_half_of_the_time():
    sided, turned = [], []
    for scene, rng in scenes():
        caption = describe_setting(scene, rng)
        assert caption_fault(caption, 2, SENTENCE) is None
        assert caption.split(":")[0] == describe_scene(scene).split(":")[0]
        clothes = [describe_outfit(person.outfit) for person in scene.people]
        parts = caption.split(": ")[1].split("; ")
        if clothes[0] == clothes[1]:
            continue
        order = [[part.endswith(worn) for part in parts].index(True) for worn in clothes]
        assert sorted(order) == [0, 1]
        turned.append(order == [1, 0])
        sided.append("on the left" in caption)
        if sided[-1]:
            assert [part.startswith("on the right") for part in parts] == [turned[-1], not turned[-1]]
    assert abs(np.mean(sided) - 0.5) < 0.07
    assert abs(np.mean(turned) - 0.5) < 0.07


def test_mentions_of_people_are_found_in_free_sentences():
    sentences = {
        "Two women: a person with freckles and a person who is bald": [{"face"}, {"hair"}],
        "a dark-skinned couple: a person in red, a person with a moustache and spectacles": [
            {"skin"}, set(), {"facial_hair", "glasses"},
        ],
        "a person wearing a brown shirt and holding a pink ball": [set()],
        "a person with Blonde hair, bearded": [{"hair", "facial_hair"}],
    }  # fmt: skip
    for sentence, expected in sentences.items():
        assert mentioned_traits(sentence) == expected, sentence
    assert describes_people("two people with glasses: a person in red, a person in blue")
    assert not describes_people("two people: a person with glasses in red, a person in blue")
    assert set(TRAITS) >= {"skin", "hair", "facial_hair", "glasses"}
