"""Things are drawn from named streams, differ by their words, and stand where their truth says."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mcpipe.world.colours import COLOURS
from mcpipe.world.identities import world_rng
from mcpipe.world.thing_captions import (
    VOCABULARY,
    describe_thing,
    describe_things,
    name_things,
    thing_vector,
    thing_words,
)
from mcpipe.world.thing_shapes import FAMILY_PARTS, clipped, rectangle
from mcpipe.world.things import (
    FAMILIES,
    PATTERNS,
    reference,
    render_things,
    sample_thing,
    sample_thing_scene,
    sample_things,
)

SIZE = 96


def stream(*numbers):
    return world_rng("tests of things", *numbers)


def scene_of(number, count=2):
    rng = stream(number)
    return sample_thing_scene(rng, sample_things(rng, count))


def test_same_numbers_draw_the_same_scene_and_other_namespaces_draw_others():
    first, again = (render_things(scene_of(3), SIZE, SIZE) for _ in range(2))
    assert np.array_equal(first.rgb, again.rgb)
    assert np.array_equal(first.labels, again.labels)
    ours, theirs = (sample_thing(world_rng(name, 0)) for name in ("zoo things", "sample things"))
    assert ours != theirs


def test_things_take_every_word_of_the_vocabulary_and_no_other():
    rng = stream(0)
    things = [sample_thing(rng) for _ in range(600)]
    seen = {name: Counter(thing_words(thing)[name] for thing in things) for name in VOCABULARY}
    assert {name: set(words) for name, words in seen.items()} == {
        name: set(words) for name, words in VOCABULARY.items()
    }
    for pattern, share in PATTERNS.items():
        assert abs(seen["pattern"][pattern] / len(things) - share) < 0.07


def test_a_colour_is_nearest_to_its_own_name_and_apart_from_the_colours_on_it():
    rng = stream(1)
    for _ in range(200):
        thing = sample_thing(rng)
        design = thing.design
        for name, rgb in ((thing.colour, design.rgb), (thing.part_colour, design.part_rgb)):
            nearest = min(COLOURS, key=lambda other: np.linalg.norm(np.subtract(COLOURS[other], rgb)))
            assert nearest == name
        assert np.linalg.norm(np.subtract(design.rgb, design.second_rgb)) >= 100


def test_two_things_of_equal_words_differ_in_continuous_traits():
    rng = stream(2)
    first, second = (sample_thing(rng, "ball") for _ in range(2))
    assert len(thing_vector(first)) == len(thing_vector(second))
    assert thing_vector(first) != thing_vector(second)
    assert all(abs(value) <= 1 for value in thing_vector(first))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_boxes_bound_masks_and_everything_is_visible_and_large(count):
    heights = []
    for number in range(12):
        scene = scene_of(number, count)
        frame = render_things(scene, SIZE, SIZE)
        assert [truth.thing for truth in frame.things] == [place.thing for place in scene.places]
        for place, truth in zip(scene.places, frame.things, strict=True):
            left, top, right, bottom = truth.box.astype(int)
            assert truth.mask[top:bottom, left:right].sum() == truth.mask.sum()
            alone = render_things(replace(scene, places=(place,)), SIZE, SIZE)
            assert truth.mask.sum() >= 0.6 * alone.things[0].mask.sum()
            heights.append((bottom - top) / SIZE)
    assert min(heights) >= 0.2
    assert max(heights) <= 0.7
    assert count != 2 or 0.35 <= np.mean(heights) <= 0.55


def test_things_stand_from_left_to_right():
    for number in range(10):
        boxes = [truth.box for truth in render_things(scene_of(number, 3), SIZE, SIZE).things]
        middles = [box[0] + box[2] for box in boxes]
        assert middles == sorted(middles)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_every_part_and_pattern_is_painted_in_its_own_colours(family):
    for part in FAMILY_PARTS[family]:
        for pattern in PATTERNS:
            thing = sample_thing(stream(4), family)
            thing = replace(thing, design=replace(thing.design, part=part, pattern=pattern))
            frame = reference(thing, stream(5), SIZE, plain=True)
            pixels = frame.rgb[frame.things[0].mask].astype(float)
            for name in {"none": ()}.get(part, ("part_rgb",)) + (("second_rgb",) if pattern != "plain" else ()):
                nearest = np.abs(pixels - getattr(thing.design, name)).max(axis=1).min()
                assert nearest < 40, (part, pattern, name)


def test_a_reference_is_the_thing_alone_on_white_or_in_a_place():
    thing = sample_thing(stream(6), "cup")
    plain, placed = (reference(thing, stream(7), SIZE, plain=plain) for plain in (True, False))
    assert np.array_equal(plain.labels, placed.labels)
    assert (plain.rgb[~plain.things[0].mask] == 255).mean() > 0.95
    assert (placed.rgb[~placed.things[0].mask] == 255).mean() < 0.5


def test_captions_name_everything_once_and_only_the_describing_form_tells_looks():
    for number in range(60):
        scene = scene_of(number, 1 + number % 3)
        families = [place.thing.family for place in scene.places]
        described, named = describe_things(scene), name_things(scene, stream(8, number))
        for family in families:
            assert described.replace(";", " ").split().count(family) == 1
            assert named.replace(";", " ").replace(",", " ").split().count(family) == 1
        assert all(describe_thing(place.thing) in described for place in scene.places)
        looks = {*COLOURS, *PATTERNS, *VOCABULARY["part"]}
        assert not looks & set(named.replace(";", " ").split())
        assert ("on a table" in named) == (scene.table is not None)


def test_mirrored_captions_turn_the_order():
    scene = scene_of(0)
    first, second = (describe_thing(place.thing) for place in scene.places)
    assert f"on the left {second}; on the right {first}" in describe_things(scene.mirrored())


def test_unknown_families_and_crowds_are_errors():
    with pytest.raises(ValueError, match="no family 'cat'"):
        sample_thing(stream(0), "cat")
    with pytest.raises(ValueError, match="one to three things, not 4"):
        sample_thing_scene(stream(0), sample_things(stream(0), 4))


def test_clipping_keeps_what_two_surfaces_share():
    inside = clipped(rectangle((0, 0), (2, 1)), rectangle((1, -1), (3, 0.5)))
    assert inside.min(axis=0).tolist() == pytest.approx([1, 0])
    assert inside.max(axis=0).tolist() == pytest.approx([2, 0.5])
    assert len(clipped(rectangle((0, 0), (1, 1)), rectangle((5, 5), (6, 6)))) == 0
