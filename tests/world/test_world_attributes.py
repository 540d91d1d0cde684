"""Attributes: a new module is all that a new one needs, and it changes nothing that was there before."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT
from processes import output

from mcpipe.world import attributes as folder
from mcpipe.world.captions import LASTING, VOCABULARY, attributes, describe_face, describe_person
from mcpipe.world.discovery import Attribute
from mcpipe.world.discovery import attributes as known_attributes
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.outfits import sample_outfit
from mcpipe.world.scene import render, sample_scene
from mcpipe.world.traits import Identity, Outfit

WORDS = (
    "skin", "hair_cut", "hair_colour", "facial_hair", "glasses", "shirt_colour", "shirt_pattern", "object",
    "object_colour",
)  # fmt: skip
HAT_RGB = [255, 0, 255]
HAT = """
from mcpipe.world.canvas import ellipse
from mcpipe.world.discovery import Attribute

def _paint(canvas, body, label):
    if body.outfit.hat:
        head = body.head
        canvas.fill(ellipse(head.upright([[0.0, -1.1]])[0], (head.radius, 0.3 * head.radius)), (255, 0, 255), label)

ATTRIBUTE = Attribute(
    order=100,
    part="garment",
    draws={"hat": lambda rng, _traits: bool(rng.random() < 0.5)},
    paints={"top": _paint},
    vocabulary={"hat": ("hat", "none")},
    words=lambda outfit: {"hat": "hat" if outfit.hat else "none"},
    phrase=lambda outfit: "pink hat" if outfit.hat else None,
)
"""
EARRINGS = """
from mcpipe.world.discovery import Attribute

ATTRIBUTE = Attribute(
    order=90,
    part="trait",
    draws={"earrings": lambda rng, traits: traits["hair_cut"] != "long" and bool(rng.random() < 0.5)},
    vocabulary={"earrings": ("earrings", "none")},
    words=lambda identity: {"earrings": "earrings" if identity.earrings else "none"},
    phrase=lambda identity: "earrings" if identity.earrings else None,
)
"""


def survey():
    """What a dozen seeds give."""
    people = []
    for number in range(12):
        rng = world_rng("tests", number)
        scene = sample_scene(rng, [sample_identity(rng)])
        frame = render(scene, 0.0, 160, 120)
        (person,) = frame.people
        who, worn = person.identity, person.outfit
        pink = (np.abs(frame.rgb.astype(int) - HAT_RGB).sum(axis=2) < 90) & (frame.labels == 1)
        people.append(
            {
                "key": who.key,
                "traits": repr([who.values[name] for name in Identity.SHARED_STREAM]),
                "clothes": repr([worn.values[name] for name in Outfit.SHARED_STREAM]),
                "words": attributes(who, worn),
                "told": describe_person(who, worn),
                "face": describe_face(who),
                "pink": int(pink.sum()),
                "picture": hashlib.sha256(frame.rgb.tobytes() + frame.labels.tobytes()).hexdigest(),
                "next": float(rng.random()),
            }
        )
    return {"vocabulary": list(VOCABULARY), "lasting": list(LASTING), "people": people}


def survey_with(tmp_path, **modules):
    """The same in a process whose folder of attributes has more modules."""
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    code = (
        "import json, sys; from mcpipe.world import attributes; attributes.__path__.append(sys.argv[1]);"
        "from test_world_attributes import survey; print(json.dumps(survey()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return json.loads(output(command, cwd=Path(__file__).parent, env=environment))


@pytest.fixture(scope="module")
def before():
    return survey()


@pytest.fixture(scope="module")
def hatted(tmp_path_factory):
    return survey_with(tmp_path_factory.mktemp("hat"), hat=HAT)


def test_a_new_module_is_sampled_painted_and_told(before, hatted):
    assert hatted["vocabulary"] == [*before["vocabulary"], "hat"]
    assert hatted["lasting"] == before["lasting"]
    wearers = [person for person in hatted["people"] if person["words"]["hat"] == "hat"]
    assert 2 < len(wearers) < 10
    for person in hatted["people"]:
        has = person["words"]["hat"] == "hat"
        assert (person["pink"] > 30) == has
        assert (" shirt and a pink hat" in person["told"]) == has


def test_a_new_module_leaves_everything_else_as_it_was(before, hatted):
    for old, new in zip(before["people"], hatted["people"], strict=True):
        for name in ("key", "traits", "clothes", "face", "next"):
            assert new[name] == old[name], name
        assert new["words"].items() >= old["words"].items()
        if new["words"]["hat"] == "none":
            assert (new["told"], new["picture"]) == (old["told"], old["picture"])


def test_a_new_lasting_trait_belongs_to_the_identity_and_does_not_touch_other_new_ones(before, hatted, tmp_path):
    both = survey_with(tmp_path, hat=HAT, earrings=EARRINGS)
    assert both["lasting"] == [*before["lasting"], "earrings"]
    combinations = set()
    for old, new, hat in zip(before["people"], both["people"], hatted["people"], strict=True):
        has = new["words"].pop("earrings") == "earrings"
        assert ("earrings" in new["face"]) == has
        assert new["key"] != old["key"]
        assert new["words"] == hat["words"]
        assert new["traits"] == old["traits"]
        combinations.add(has)
    assert combinations == {True, False}


def test_attributes_that_would_be_lost_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="nostril"):
        Attribute(order=1, part="trait", draws={}, paints={"nostril": print})  # pyright: ignore
    (tmp_path / "second_glasses.py").write_text(
        HAT.replace('"hat": lambda rng', '"glasses": lambda rng'), encoding="utf-8"
    )
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    try:
        with pytest.raises(ValueError, match="glasses is taken"):
            known_attributes.__wrapped__()
    finally:
        sys.modules.pop(f"{folder.__name__}.second_glasses", None)


def test_what_the_world_began_with_stays_as_it_was_drawn():
    """Committed checkpoints, clips and figures depend on it; whoever changes it on purpose renews these digests."""
    traits, clothes, words = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for name in ("zoo", "clips", "faces"):
        for number in range(40):
            rng = world_rng(name, number)
            who, worn = sample_identity(rng), sample_outfit(rng)
            traits.update(Identity({trait: who.values[trait] for trait in Identity.SHARED_STREAM}).key.encode())
            clothes.update(repr([worn.values[trait] for trait in Outfit.SHARED_STREAM]).encode())
            described = attributes(who, worn)
            words.update(repr([described[word] for word in WORDS]).encode())
    digests = [digest.hexdigest()[:16] for digest in (traits, clothes, words)]
    assert digests == ["7f24fa6a68ba50ee", "8808b6e450693350", "fae25fe3137a2dda"]
