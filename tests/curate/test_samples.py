import numpy as np
import pytest
from imports import ROOT

from mcpipe.core.params import read_params
from mcpipe.core.records import RejectionError
from mcpipe.curate.captions import SentenceParams, caption_fault
from mcpipe.curate.samples import (
    CLOSEUP_MARGIN,
    SamplesParams,
    closeup,
    closeup_window,
    crop_masks,
    crop_window,
    face_crop,
    face_masks,
    identity_groups,
    portrait,
    split_by_identity,
)
from mcpipe.curate.windows import Window, body_shares, faces_window, heads, square_window, target_window
from mcpipe.steps.samples import largest_group, references
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render, sample_scene
from mcpipe.world.setting import CLOSE

SENTENCE = SentenceParams(min_words=5, max_words=20, attempts=2, temperature=0.7, max_tokens=64, seed=0)


def noise(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(x0, y0, x1, y1, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("two people in a park: a person in red and a person in blue", None),
        ("Two people: A person waves, a person sits, both smile.", None),
        ("a person and a person", None),
        ("a person only", "caption_too_short"),
        ("one person in a park: a person in a red shirt", "caption_wrong_count"),
        ("three people: a person, a person and a person in a park", "caption_wrong_count"),
        ("Two people stand in a kitchen: a tall woman with dark hair, and an older man in a coat.", None),
        ("Two friends laugh on a sofa; one is in a red shirt, the other holds a cup of tea.", None),
        ("A young man hugs another man on a beach, and the man on the left wears a hat.", None),
        ("Two people in a park: a woman in a red shirt smiles at her dog.", "caption_wrong_count"),
        ("Three people in a park: a woman in red, a man in blue and trees.", "caption_wrong_count"),
        ("a person and a person stand in front of several people in a hall", "caption_wrong_count"),
        ("I\u2019m sorry, but I can\u2019t help with a person and a person in pictures", "caption_refusal"),
        ("Sure, here is a caption: a person in red and a person in blue", "caption_chatter"),
        ("a person as in the first picture and a person as in the second picture", "caption_chatter"),
        ("a person in red and a person and so on and so on and so on and so on", "caption_loops"),
        ("I'm sorry, I cannot describe a person and a person in pictures", "caption_refusal"),
        (" ".join(["a person and a person"] + ["very"] * 20), "caption_too_long"),
        ("", "caption_too_short"),
        ("two people: a person in red and a \ufffd\ufffd a person", "caption_garbled"),
    ],
)
def test_captions_are_refused_by_name(caption, reason):
    assert caption_fault(caption, 2, SENTENCE) == reason


def test_square_holds_everyone_or_is_refused():
    x, _, side, _ = square_window(np.array([[40, 20, 70, 100], [90, 10, 130, 100]], np.float32), 100, 200)
    assert side == 94  # four per cent more than the 90 pixels they span
    assert x <= 40
    assert x + side >= 130
    assert square_window(np.array([[0, 0, 30, 100], [170, 0, 200, 100]], np.float32), 100, 200) is None
    x, y, side, _ = square_window(np.array([[10, 20, 50, 100], [110, 10, 160, 100]], np.float32), 100, 200)
    assert (x, y, side) == (7, -28, 156), "wider than the frame is high: it reaches over its upper and lower edge"
    x, y, side, _ = square_window(np.array([[50, 30, 90, 80]], np.float32), 100, 200)
    assert x <= 50
    assert y <= 30
    assert x + side >= 90
    assert y + side >= 80
    assert side < 60


def bodies_of(*spans, height=100, width=240):
    """Masks of people who fill the frame's height, boxes of their bodies and of faces 20 px wide in their middle."""
    masks = np.stack([rectangle(max(left, 0), 10, right, height, (height, width)) for left, right in spans])
    bodies = np.array([[left, 10, right, height] for left, right in spans], np.float32)
    faces = np.array([[(a + b) / 2 - 10, 15, (a + b) / 2 + 10, 40] for a, b in spans], np.float32)
    return masks, bodies, faces


def test_the_crop_faces_cuts_bodies_where_everyone_reaches_over_the_edges_or_is_refused():
    too_wide = bodies_of((10, 120), (80, 190))
    with pytest.raises(RejectionError, match="wider than the frame"):
        target_window(*too_wide, "everyone", 0.5)
    x, y, side, _ = target_window(*too_wide, "faces", 0.5)
    assert (y, side) == (0, 100)
    shares = body_shares(too_wide[0], Window.square(x, y, side))
    others = [body_shares(too_wide[0], Window.square(place, 0, 100)).min() for place in (49, 50, 51)]
    assert shares.min() == max(others) >= 0.5
    held = heads(*too_wide[1:])
    assert x <= held[:, 0].min()
    assert x + side >= held[:, 2].max()
    with pytest.raises(RejectionError, match="% of a body"):
        target_window(*too_wide, "faces", 0.7)


def test_a_square_inside_the_frame_for_everybody_is_the_same_for_both_crops():
    people = bodies_of((80, 120), (130, 170))
    assert target_window(*people, "faces", 0.5) == target_window(*people, "everyone", 0.5)
    # Half of a body is less than what should remain: the square reaches over the edges, as it does for everyone.
    apart = bodies_of((50, 100), (110, 160))
    assert target_window(*apart, "everyone", 0.5)[1] < 0
    assert target_window(*apart, "faces", 0.95) == target_window(*apart, "everyone", 0.95)
    assert target_window(*apart, "faces", 0.5) == Window.square(55, 0, 100)


def test_faces_that_no_square_holds_are_refused_and_upright_frames_are_cut_alike():
    masks, bodies, faces = bodies_of((0, 60), (180, 240))
    with pytest.raises(RejectionError, match="the faces stand wider"):
        target_window(masks, bodies, faces, "faces", 0.0)
    turned = [boxes[:, [1, 0, 3, 2]] for boxes in bodies_of((10, 120), (80, 190))[1:]]
    masks = bodies_of((10, 120), (80, 190))[0].transpose(0, 2, 1)
    x, y, side, _ = faces_window(masks, turned[1], (100, 100))
    assert (x, side) == (0, 100)
    assert y <= turned[1][:, 1].min()
    assert y + side >= turned[1][:, 3].max()


def test_a_person_at_the_edge_of_the_frame_is_held_with_what_the_frame_shows():
    x, y, side, _ = target_window(*bodies_of((-25, 45), (40, 120), height=100, width=178), "faces", 0.5)
    assert (x, y, side) == (0, 0, 100)
    assert len(body_shares(np.zeros((1, 9, 9), bool), Window.square(0, 0, 9))) == 1
    assert body_shares(np.zeros((1, 9, 9), bool), Window.square(0, 0, 9)) == 0


def test_what_lies_outside_the_frame_is_white_and_nobody():
    window = square_window(np.array([[10, 20, 50, 100], [110, 10, 160, 100]], np.float32), 100, 200)
    target = crop_window(np.full((100, 200, 3), 7, np.uint8), window, (156, 156))
    masks = crop_masks(np.ones((1, 100, 200), bool), window, (156, 156))
    assert (masks[0] == (target[..., 0] == 7)).all()
    assert masks[0].sum() == 100 * 156


def test_masks_come_back_unchanged():
    mask = noise(5, 40, 40)[..., 0][None] > 128
    window = Window.square(4, 6, 30)
    cut = mask[:, 6:36, 4:34]
    assert (crop_masks(mask, window, (30, 30)) == cut).all()
    assert (crop_masks(mask, window, (90, 90))[:, 1::3, 1::3] == cut).all()


def test_cropped_masks_stay_disjoint_and_keep_their_share():
    masks = np.stack([rectangle(0, 0, 51, 100), rectangle(51, 0, 100, 100)])
    cropped = crop_masks(masks, Window.square(0, 0, 100), (24, 24))
    assert not cropped.all(axis=0).any()
    np.testing.assert_allclose(cropped.mean(axis=(1, 2)), [0.51, 0.49], atol=0.03)


def test_face_reference_is_square_with_white_outside_the_picture():
    picture = np.zeros((100, 100, 3), np.uint8)
    crop = face_crop(picture, np.array([0, 0, 40, 40], np.float32), 60)
    assert crop.shape == (60, 60, 3)
    assert (crop[0] == 255).all()
    assert (crop[30:, 30:] == 0).all()


def test_portrait_shows_one_person_on_white():
    picture = np.full((100, 100, 3), 7, np.uint8)
    cut = portrait(picture, rectangle(40, 20, 60, 80), 60)
    assert (cut[:, 30] == 7).all()
    assert (cut[:, :15] == 255).all()
    with pytest.raises(ValueError, match="at least one pixel"):
        portrait(picture, np.zeros((100, 100), bool), 60)


def test_face_mask_is_the_part_of_the_person_in_the_face_box():
    masks = rectangle(20, 0, 60, 100)[None]
    assert face_masks(masks, np.array([[10, 10, 40, 30]], np.float32)).sum() == 20 * 20
    assert face_masks(masks, np.array([[-30, -30, 40, 30]], np.float32)).sum() == 20 * 30


def test_one_identity_in_three_clips_keeps_them_in_one_split():
    """The first and the last look differ too much; the one in between joins them."""
    groups = identity_groups(directions(0, 90, 20, 180, 40, 270), same_identity=0.9)
    clips = dict(zip("abc", groups.reshape(3, 2).tolist(), strict=True))
    assert groups[0] == groups[2] == groups[4]
    assert len(set(split_by_identity(clips, val_fraction=0.4, seed=0).values())) == 1


def test_one_identity_in_several_clips_is_one_group():
    groups = identity_groups(directions(0, 90, 5, 180, 95), same_identity=0.9)
    assert groups[0] == groups[2]
    assert groups[1] == groups[4]
    assert len(set(groups)) == 3


def pairs_of_strangers(number):
    return {f"clip-{i:04d}": [f"left-{i}", f"right-{i}"] for i in range(number)}


def test_no_identity_is_in_both_splits():
    clips = pairs_of_strangers(400) | {f"clip-{i:04d}-b": [f"left-{i}", f"right-{i + 1}"] for i in range(0, 400, 5)}
    splits = split_by_identity(clips, val_fraction=0.15, seed=1)
    seen = {
        split: {who for name in clips if splits[name] == split for who in clips[name]} for split in ("train", "val")
    }
    assert not seen["train"] & seen["val"]
    assert 0.1 < list(splits.values()).count("val") / len(clips) < 0.2
    assert splits != split_by_identity(clips, val_fraction=0.15, seed=2)


def test_look_alikes_that_chain_most_clips_together_are_told(caplog):
    chain = {f"clip-{i}": [f"one-{i}", f"one-{i + 1}"] for i in range(6)}
    assert largest_group(chain | pairs_of_strangers(5)) == 6
    assert "6 of 11 clips" in caplog.text
    caplog.clear()
    assert largest_group(pairs_of_strangers(5)) == 1
    assert largest_group({}) == 0
    assert not caplog.text


def test_more_clips_move_no_other_sample():
    few, many = (split_by_identity(pairs_of_strangers(n), val_fraction=0.15, seed=0) for n in (40, 200))
    assert {name: many[name] for name in few} == few
    fewer = {name: who for name, who in pairs_of_strangers(40).items() if name != "clip-0007"}
    assert split_by_identity(fewer, 0.15, 0).items() <= few.items()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("fraction", "number"), [(0.01, 2), (0.99, 2), (0.15, 3)])
def test_both_splits_have_a_sample_from_two_groups_on(fraction, number, seed):
    splits = split_by_identity(pairs_of_strangers(number), fraction, seed)
    assert set(splits.values()) == {"train", "val"}
    assert set(split_by_identity(pairs_of_strangers(number), 0.0, seed).values()) == {"train"}
    assert split_by_identity({}, fraction, seed) == {}


def test_a_reference_on_white_shows_nobody_else():
    """In close shots a neighbour is in many a reference that is cut from the scene."""
    params = read_params(ROOT / "params.yaml", "samples", SamplesParams)
    strangers = {"scene": [], "white": []}
    for number in range(12):
        rng = world_rng("tests of references", number)
        frame = render(sample_scene(rng, [sample_identity(rng) for _ in range(2)], framing=CLOSE), 0.5, 240, 240)
        masks = np.stack([frame.labels == place + 1 for place in range(2)])
        boxes = np.stack([person.face_box for person in frame.people])
        marked = np.where(masks[:, :, :, None].any(axis=0), frame.rgb, np.uint8(255))
        for background, counts in strangers.items():
            chosen = params.model_copy(update={"reference_background": background})
            for place in range(2):
                # The neighbour alone is red: whatever of the reference is red shows the neighbour.
                picture = np.where(masks[1 - place][:, :, None], np.uint8([255, 0, 0]), marked)
                cut = references(picture, masks, boxes, chosen)[place].astype(int)
                assert cut.shape == (48, 48, 3)
                counts.append(int(((cut[..., 0] > 200) & (cut[..., 1:].max(axis=2) < 50)).sum()))
                own = references(frame.rgb, masks, boxes, chosen)[place]
                assert (own.min(axis=2) < 250).mean() > 0.3
    assert max(strangers["white"]) == 0
    assert np.mean(np.array(strangers["scene"]) > 10) > 0.5


def test_a_closeup_shows_one_person_alone_and_stays_in_the_frame():
    red = 0
    for number in range(12):
        rng = world_rng("tests of references", number)
        frame = render(sample_scene(rng, [sample_identity(rng) for _ in range(2)], framing=CLOSE), 0.5, 240, 240)
        masks = np.stack([frame.labels == place + 1 for place in range(2)])
        for place, person in enumerate(frame.people):
            x, y, side, _ = closeup_window(person.face_box, 240, 240)
            assert min(x, y) >= 0
            assert max(x, y) + side <= 240
            assert side <= round(CLOSEUP_MARGIN * max(person.face_box[2:] - person.face_box[:2]))
            marked = np.where(masks[1 - place][:, :, None], np.uint8([255, 0, 0]), frame.rgb)
            alone = closeup(marked, masks, person.face_box, place)
            assert alone.shape == (side, side, 3)
            neighbour = masks[1 - place][y : y + side, x : x + side]
            assert (alone[neighbour] == 255).all()
            own = masks[place][y : y + side, x : x + side]
            assert (alone[own] == frame.rgb[y : y + side, x : x + side][own]).all()
            red += int(neighbour.sum())
    assert red > 0, "a neighbour reaches into some close-ups"
