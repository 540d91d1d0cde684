"""Images of things for the zoo: with masks, references and captions."""

import numpy as np
import pytest

from mcpipe.world.thing_captions import VOCABULARY
from zoo.build.things import COARSER, REFERENCE, SIDE, ThingsParams, build, read_things


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    params = ThingsParams(
        num_scenes=6, num_test_scenes=3, num_gallery_things=3, gallery_pictures=2, scene_captions=2, workers=1
    )
    build(folder, params)
    return read_things(folder / "train"), read_things(folder / "test")


def test_labels_boxes_references_and_captions_belong_together(sets):
    train, _ = sets
    assert train.frames.shape == (6, SIDE, SIDE, 3)
    assert train.labels.shape == (6, SIDE // COARSER, SIDE // COARSER)
    for index, scene in enumerate(train.scenes):
        total = len(scene["names"])
        assert set(np.unique(train.labels[index])) == set(range(total + 1))
        assert len(scene["settings"]) == len(scene["mirrored_settings"]) == 2
        assert all(description in scene["caption"] for description in scene["things"])
        for seat, box in enumerate(scene["boxes"]):
            rows, columns = np.nonzero(np.asarray(train.labels[index]) == seat + 1)
            bounds = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * COARSER
            assert np.abs(bounds - box).max() <= COARSER
            assert scene["phrases"][seat].endswith(scene["names"][seat])
            assert set(scene["attributes"][seat]) == set(VOCABULARY)
    assert train.scenes[-1]["first_reference"] + len(train.scenes[-1]["names"]) == len(train.references)


def test_references_show_most_of_the_thing_with_its_mask(sets):
    train, _ = sets
    assert train.references.shape[1:] == (REFERENCE, REFERENCE, 4)
    shares = (np.asarray(train.references[..., 3]) > 0).mean(axis=(1, 2))
    assert shares.min() > 0.03
    assert shares.max() < 0.7


def test_the_test_set_has_a_gallery_and_other_things(sets):
    train, test = sets
    assert len(train.gallery) == 0
    assert test.gallery_things.tolist() == [0, 0, 1, 1, 2, 2]
    ours = {tuple(vector) for scene in train.scenes for vector in scene["traits_vectors"]}
    theirs = {tuple(vector) for scene in test.scenes for vector in scene["traits_vectors"]}
    assert not ours & theirs


def test_a_missing_image_set_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="has the stage `things` of the zoo run"):
        read_things(tmp_path)
