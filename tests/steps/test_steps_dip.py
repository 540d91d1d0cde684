"""Pairs whose images differ in their subjects: what is kept, what is refused, and what a second run repeats."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, make_samples
from preference_fixtures import DIP, NoisyInpainter, Recogniser

from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report, read_report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.execution.engine import write_decided
from mcpipe.objectives.focus import detail_mask, patch_entropy
from mcpipe.steps.dip import TargetItems, _owner, decided_pair, grow
from mcpipe.steps.pair_weights import patch_quality
from mcpipe.train.preference.records import DisruptedPair


@pytest.fixture(scope="module")
def sample(samples):
    return next(read_shards(samples, Sample))


def alike(picture):
    """A reference is everybody; an image shows both people unless its masked part was repainted."""
    if picture.shape[0] == REFERENCE_SIZE:
        return [[1.0, 0.0]]
    return [[1.0, 0.0], [1.0, 0.0]] if picture.tobytes() in ORIGINALS else [[0.0, 1.0]]


ORIGINALS = set()


@pytest.fixture(autouse=True)
def originals(samples):
    for each in read_shards(samples, Sample):
        ORIGINALS.update([each.target.tobytes(), *(closeup.tobytes() for closeup in each.closeups)])


def made(sample, person=None, recogniser=alike, inpainter=None, **changes):
    return decided_pair(
        sample, "key", person, inpainter=inpainter or NoisyInpainter(), recogniser=Recogniser(recogniser), draw=None,
        params=DIP.model_copy(update=changes),
    )  # fmt: skip


def reason(*arguments, **options):
    with pytest.raises(RejectionError) as error:
        made(*arguments, **options)
    return error.value.reason


@pytest.mark.parametrize(("person", "kind", "num"), [(None, "multi", 2), (1, "single", 1)])
def test_a_pair_differs_inside_its_masks_alone(sample, person, kind, num):
    pair = made(sample, person)
    inside = pair.masks.any(0)
    assert (pair.kind, len(pair.references), len(pair.masks)) == (kind, num, num)
    assert np.array_equal(pair.winner[~inside], pair.loser[~inside])
    assert (pair.winner[inside] != pair.loser[inside]).any(-1).mean() > 0.9
    assert (pair.winner_similarity, pair.loser_similarity) == (1.0, 0.0)
    again = made(sample, person)
    assert np.array_equal(again.loser, pair.loser)


def test_every_fault_has_a_name(sample):
    empty = replace(sample, masks=np.zeros_like(sample.masks))
    assert reason(empty) == "empty_mask"
    one_empty = sample.masks.copy()
    one_empty[1] = False
    assert reason(replace(sample, masks=one_empty)) == "empty_mask"
    assert reason(sample, recogniser=lambda picture: []) == "reference_without_face"
    reference_alone = lambda picture: [[1.0, 0.0]] if len(picture) == REFERENCE_SIZE else [[0.0, 1.0]]  # noqa: E731
    assert reason(sample, recogniser=reference_alone) == "winner_unlike_reference"
    assert reason(sample, recogniser=lambda picture: [[1.0, 0.0]] * 2) == "loser_alike"
    assert reason(replace(sample, closeup_captions=("", "")), person=0) == "no_caption"

    class Enlarging:
        def repainted(self, picture, mask, text, *, seed):
            return np.zeros((IMAGE_SIZE + 8, IMAGE_SIZE, 3), np.uint8)

    assert reason(sample, inpainter=Enlarging()) == "sizes_differ"


def test_a_drawn_winner_has_the_masks_of_its_own_people(sample):
    drawn = np.random.default_rng(7).integers(0, 256, sample.target.shape, dtype=np.uint8)
    ORIGINALS.add(drawn.tobytes())
    half = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool)
    half[0, :, :16] = half[1, :, 8:] = True

    class Draw:
        def __call__(self, target):
            assert target.caption == sample.caption
            return drawn

        def masks(self, image, boxes):
            assert boxes.shape == (2, 4)
            return half

    pair = decided_pair(sample, "key", None, NoisyInpainter(), Recogniser(alike), Draw(), DIP)
    assert np.array_equal(pair.winner, drawn)
    assert pair.masks[0, 4:12, 4:12].all(), "the face's box within the person"
    assert pair.masks[1, 4:12, 8:12].all()
    assert not pair.masks[:, 20:].any()


def test_a_face_belongs_to_whoever_holds_its_middle():
    people = np.array([[0, 0, 10, 30], [8, 0, 30, 30]], np.float32)
    assert _owner(people, np.array([12, 2, 18, 8], np.float32)) == 1
    assert _owner(people, np.array([2, 2, 8, 8], np.float32)) == 0
    with pytest.raises(RejectionError, match="no_person"):
        _owner(people, np.array([40, 2, 48, 8], np.float32))


def test_masks_grow_by_their_own_size():
    mask = np.zeros((40, 40), bool)
    mask[15:25, 15:25] = True
    grown = grow(mask, 0.2)
    assert grown[mask].all()
    assert grown[20, 13:27].all()
    assert not grown[20, 12]
    assert np.array_equal(grow(mask, 0.0), mask)


CALLS = []


def counted(sample, key, person):
    """The work of `Work`, which counts its calls."""
    CALLS.append(key)
    pair = decided_pair(
        sample, key, person, inpainter=NoisyInpainter(), recogniser=Recogniser(alike), draw=None, params=DIP
    )  # fmt: skip
    if len(CALLS) == STOP[0]:
        raise KeyboardInterrupt
    return pair


STOP = [0]


@dataclass(frozen=True)
class Work:
    """Work as the stage's, without models."""

    seed: int = 0

    def load(self):
        return counted


def test_all_images_of_the_split_are_tried_and_a_second_run_goes_on(tmp_path):
    make_samples(tmp_path / "samples", 3)
    for each in read_shards(tmp_path / "samples", Sample):
        ORIGINALS.update([each.target.tobytes(), *(closeup.tobytes() for closeup in each.closeups)])
    items = TargetItems(tmp_path / "samples", DIP)
    keys = [item.key for item in items]
    assert keys == sorted(f"clip_{i}-{part}" for i in range(2) for part in ("all", "0", "1"))
    STOP[0] = 3
    with pytest.raises(KeyboardInterrupt):
        write_decided(items, Work(), Report("dip"), tmp_path / "dip", 4)
    assert keys[:3] == CALLS
    assert not (tmp_path / "dip").exists()
    STOP[0] = 0
    write_decided(items, Work(), Report("dip"), tmp_path / "dip", 4)
    assert CALLS[3:] == keys[2:]
    assert [pair.key for pair in read_shards(tmp_path / "dip", DisruptedPair)] == keys
    assert read_report(tmp_path / "dip")["kept"] == len(keys)


def test_quality_is_one_where_nothing_was_repainted():
    rng = np.random.default_rng(0)
    winner = rng.normal(size=(6, 8)).astype(np.float32)
    loser = winner.copy()
    loser[2] *= -1
    loser[3] *= 2
    quality = patch_quality(winner, loser, (2, 3))
    np.testing.assert_allclose(quality, [[1, 1, 0], [1, 1, 1]], atol=1e-6)


def test_detail_of_a_picture_is_highest_where_its_texture_is_richest(sample):
    picture = sample.target.copy()
    picture[:8] = 128
    detail = detail_mask(patch_entropy(picture, (4, 4)))
    assert detail[0].max() == 0
    assert detail.max() == 1
