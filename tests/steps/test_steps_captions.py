"""Captions of a clip and of its people's close-ups."""

import numpy as np
import pytest
from record_fixtures import frame_pair

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.curation import ClipPeople, VerifiedIdentity
from mcpipe.steps.captions import CaptionsParams, captioned

PARAMS = CaptionsParams(
    min_words=3, max_words=30, attempts=2, temperature=0.7, max_tokens=60, seed=0, reference_size=28,
    describe="scene", crop="faces", min_body=0.5, aspect="square", buckets=["112x80"], records_per_shard=4,
)  # fmt: skip
TOGETHER = "two people in a park: a person wearing a red shirt; a person wearing a blue shirt"
ALONE = "one person in a park: a person wearing a red shirt"
TELLING = "one person in a park: a person with pale skin and red hair, wearing a red shirt"
SIDE = 64


class Whole:
    """A text encoder that reads everything."""

    def lost(self, text):
        return ""


class Writer:
    """Answers by the number of images, in turn; keeps the images."""

    def __init__(self, **answers):
        self.answers = {"two": iter(answers["two"]), "one": iter(answers["one"])}
        self.requests = []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        assert "faces, hair or skin" in instruction
        self.requests.append((pictures, temperature, seed))
        return next(self.answers["two" if len(pictures) == 3 else "one"])


def clip():
    """Two people side by side, the left one red and the right one blue, who are detected in the other order."""
    picture = np.full((SIDE, SIDE, 3), 200, np.uint8)
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 10:, 34:60], masks[1, 10:, 4:30] = True, True
    picture[masks[1]], picture[masks[0]] = (255, 0, 0), (0, 0, 255)
    boxes = np.array([[34, 10, 60, 64], [4, 10, 30, 64]], np.float32)
    faces = np.array([[10, 12, 24, 28], [40, 12, 54, 28]], np.float32)
    people = ClipPeople(
        key="a", scores={}, boxes=np.stack([boxes, boxes]), keypoints=np.zeros((2, 2, 17, 3), np.float32),
        masks=np.stack([masks, masks]),
    )  # fmt: skip
    identity = VerifiedIdentity(
        key="a", recogniser="puppet", scores={}, order=np.array([1, 0]), face_boxes=np.stack([faces, faces]),
        landmarks=np.zeros((2, 2, 5, 2), np.float32), embeddings=np.zeros((2, 2, 4), np.float32),
    )  # fmt: skip
    return frame_pair("a", picture), people, identity


def test_every_closeup_has_a_caption_of_its_own_and_shows_its_person_alone():
    writer = Writer(two=[TOGETHER], one=[ALONE, TELLING, ALONE])
    record = captioned(*clip(), writer, Whole(), PARAMS)
    assert (record.caption, record.attempts) == (TOGETHER, 1)
    assert record.closeup_captions == (ALONE, ALONE)
    assert [(temperature, seed) for _, temperature, seed in writer.requests] == [(0, 0), (0, 0), (0, 0), (0.7, 1)]
    left, right = (writer.requests[place][0][-1].astype(int) for place in (1, 2))
    assert (left == (255, 0, 0)).all(axis=2).any()
    assert not (left == (0, 0, 255)).all(axis=2).any()
    assert (right == (0, 0, 255)).all(axis=2).any()
    assert not (right == (255, 0, 0)).all(axis=2).any()


def test_a_closeup_without_a_usable_caption_has_none_and_the_clip_stays():
    record = captioned(*clip(), Writer(two=[TOGETHER], one=[TELLING, TELLING, ALONE]), Whole(), PARAMS)
    assert record.closeup_captions == ("", ALONE)


def test_a_clip_without_a_usable_caption_is_refused_by_name():
    telling = TOGETHER.replace("a person wearing a red", "a person with red hair and a beard, wearing a red")
    with pytest.raises(RejectionError) as caught:
        captioned(*clip(), Writer(two=[telling, telling], one=[]), Whole(), PARAMS)
    assert caught.value.reason == "caption_describes_people"
