"""Gate of the leak rate: images with planted leaks give back the planted rate, up to the reader's own error."""

import cv2
import numpy as np
import pytest

from mcpipe.bench.leaks import has_leak
from mcpipe.curate.samples import face_crop
from mcpipe.models.scorers.clip import Clip
from mcpipe.world.captions import PHRASES, trait_phrases
from mcpipe.world.identities import Identity, sample_identity, world_rng
from mcpipe.world.lookalikes import differences, look_alike
from mcpipe.world.scene import render, sample_scene
from mcpipe.world.setting import CLOSE

NUM_PAIRS = 40
GENERATED_PX, REFERENCE_PX = 96, 48
FRAME = (240, 240)


def phrases(identity: Identity) -> tuple[str, ...]:
    said = trait_phrases(identity)
    return tuple(said[name] for name in PHRASES)


def pairs():
    """Look-alikes who differ in a trait that has words, with the first one's copy that has a trait of the second."""
    located, number = [], 0
    while len(located) < NUM_PAIRS:
        rng = world_rng("tests leaks", number)
        number += 1
        first = sample_identity(rng)
        second = look_alike(rng, first)
        if phrases(first) != phrases(second) and len(differences(first, second)) == 1:
            located.append((rng, first, second))
    return located


def faces(rng, left, right):
    """Face crops of two people in a generated image's size."""
    frame = render(sample_scene(rng, [left, right], framing=CLOSE), 0.5, *FRAME)
    small = cv2.resize(frame.rgb, (GENERATED_PX, GENERATED_PX), interpolation=cv2.INTER_AREA)
    return [face_crop(small, person.face_box * GENERATED_PX / FRAME[0], REFERENCE_PX) for person in frame.people]


@pytest.fixture(scope="module")
def rates(root):
    """Measured leak rate of the left person, by what is drawn there: the person, or the other with all traits."""
    clip = Clip(root / "zoo" / "clip")
    verdicts = {"none": [], "all": []}
    for rng, first, second in pairs():
        for kind, drawn in (("none", first), ("all", second)):
            crop, _ = faces(rng, drawn, second)
            verdicts[kind].append(has_leak(clip.pictures([crop])[0], phrases(first), [phrases(second)], clip))
    return {kind: float(np.mean(seen)) for kind, seen in verdicts.items()}


def test_a_reader_sees_planted_leaks_and_few_others(rates):
    assert rates["none"] <= 0.15
    assert rates["all"] >= 0.85
