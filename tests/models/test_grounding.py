"""The adapter of Grounding DINO: format and wiring, with a tiny model whose weights are random."""

import shutil

import numpy as np
import pytest
from grounder_fixtures import write_grounder

from mcpipe.models.grounding import GroundingDino

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("grounder")
    write_grounder(place)
    return place


def test_boxes_are_in_pixels_of_the_image_and_certainties_are_above_the_threshold(folder):
    boxes, certainties = GroundingDino(folder, 0.0).boxes(PICTURE, "A red mug")
    assert boxes.shape == (6, 4)
    assert certainties.shape == (6,)
    assert np.all((certainties > 0) & (certainties < 1))
    assert np.all(boxes[:, 2:] >= boxes[:, :2])
    assert boxes[:, 2].max() > 1, "pixels, not shares"
    middle = float(np.median(certainties))
    some, scores = GroundingDino(folder, middle).boxes(PICTURE, "A red mug")
    np.testing.assert_allclose(some, boxes[certainties > middle])
    assert np.all(scores > middle)


def test_a_threshold_that_nothing_reaches_leaves_no_box(folder):
    boxes, certainties = GroundingDino(folder, 1.0).boxes(PICTURE, "cat")
    assert boxes.shape == (0, 4)
    assert certainties.shape == (0,)


def test_case_and_full_stop_of_a_phrase_do_not_matter_but_its_words_do(folder):
    grounder = GroundingDino(folder, 0.0)
    plain = grounder.boxes(PICTURE, "red mug")[1]
    np.testing.assert_array_equal(grounder.boxes(PICTURE, " Red mug. ")[1], plain)
    assert not np.array_equal(grounder.boxes(PICTURE, "cat")[1], plain)


def test_a_phrase_that_is_too_long_is_refused(folder):
    with pytest.raises(ValueError, match="the grounder reads 16 tokens, and 'red red .* has 23; shorten the phrase"):
        GroundingDino(folder, 0.0).boxes(PICTURE, "red " * 20)


def test_a_folder_that_is_no_grounder_is_refused_in_one_line(folder, root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no grounder folder"):
        GroundingDino(tmp_path / "absent", 0.35)
    with pytest.raises((ValueError, FileNotFoundError), match=str(root / "zoo" / "clip")):
        GroundingDino(root / "zoo" / "clip", 0.35)
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match="no usable grounder"):
        GroundingDino(tmp_path / "cut", 0.35)
