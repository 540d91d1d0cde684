"""Faces that fill the picture are one face each, strips of pixels are no faults, last digits decide nothing."""

import numpy as np
import onnxruntime
import pytest

from mcpipe.core.records import RejectionError
from mcpipe.core.rounding import cosines
from mcpipe.curate.identity import check_match, match_people
from mcpipe.models.faces import InsightFaces, distinct, without_parts
from mcpipe.models.images import read_image
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render_portrait


def cut(picture, box, margin):
    """A picture cut to so many times the size of a face."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * margin
    (x0, y0), (x1, y1) = np.maximum(middle - half, 0).astype(int), (middle + half).astype(int)
    return picture[y0:y1, x0:x1]


def test_a_face_cut_tightly_is_one_face_and_the_same_person(root):
    finder = InsightFaces(root / "zoo" / "faces" / "models" / "puppet", 0.5, 256)
    all_detections, tight = [], []
    for number in range(8):
        rng = world_rng("tight", 1, number)
        picture = render_portrait(sample_identity(rng), rng, 320).rgb
        all_detections.append(finder.faces(picture))
        tight.append([finder.faces(cut(picture, all_detections[-1].boxes[0], margin)) for margin in (1.3, 1.1, 0.95)])
    assert [[len(faces.boxes) for faces in views] for views in tight] == [[1, 1, 1]] * 8
    people = np.stack([detections.embeddings[0] for detections in all_detections])
    for cut_at in (0, 1):
        similarity = np.stack([views[cut_at].embeddings[0] for views in tight]) @ people.T
        assert similarity.argmax(axis=1).tolist() == list(range(8)), "everybody is most like themselves"
    for shape in ((1, 3000), (3000, 1), (1, 1)):
        assert len(finder.faces(np.zeros((*shape, 3), np.uint8)).boxes) == 0


def test_parts_count_only_within_a_face_that_fills_the_picture():
    boxes = np.array(
        [[10, 10, 50, 50], [0, 0, 100, 100], [55, 10, 95, 50], [70, 70, 150, 150], [2, 2, 98, 98]], np.float32
    )
    kept = without_parts(boxes, 60)
    assert kept == [1, 3, 4]
    assert distinct(boxes, kept) == [1, 3]
    assert without_parts(boxes, 101) == [0, 1, 2, 3, 4]
    assert without_parts(boxes[:0], 60) == []


@pytest.mark.real
def test_real_faces_cut_to_their_boxes_are_found(real):
    finder = InsightFaces(real / "ckpt" / "insightface" / "models" / "buffalo_sc_int8src", 0.5, 640)
    for file in sorted((real / "faces").glob("*.jpg")):
        picture = read_image(file)
        (box,) = finder.faces(picture).boxes
        assert [len(finder.faces(cut(picture, box, margin)).boxes) for margin in (1.0, 0.8)] == [1, 1], file


def configured(pack, level, threads=1, mode=onnxruntime.ExecutionMode.ORT_SEQUENTIAL):
    """A face analyser whose networks run under another configuration of onnxruntime."""
    finder = InsightFaces(pack, 0.5, 256)
    for model in finder._app.models.values():
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads = level, threads
        options.execution_mode, options.log_severity_level = mode, 4
        model.session = onnxruntime.InferenceSession(model.model_file, options, ["CPUExecutionProvider"])
    return finder


@pytest.fixture(scope="module")
def portraits_of_world():
    rngs = [world_rng("equal bytes", 1, number) for number in range(10)]
    return [render_portrait(sample_identity(rng), rng, 160).rgb for rng in rngs]


@pytest.mark.parametrize("name", ["faces/models/puppet", "faces_heldout/models/puppet_heldout"])
def test_threads_and_execution_modes_change_no_byte_of_what_is_seen(root, portraits_of_world, name):
    pack, level = root / "zoo" / name, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    finders = [
        InsightFaces(pack, 0.5, 256),
        configured(pack, level, threads=2),
        configured(pack, level, mode=onnxruntime.ExecutionMode.ORT_PARALLEL),
    ]
    for picture in portraits_of_world[:4]:
        expected, *others = (vars(finder.faces(picture)) for finder in finders)
        for values in others:
            assert all(np.array_equal(values[field], expected[field]) for field in expected)


def test_the_last_digits_of_a_configuration_change_no_decision(root, portraits_of_world):
    """Without optimisation, networks differ in the last digits; of what leaves the recogniser nearly nothing does."""
    pack = root / "zoo" / "faces" / "models" / "puppet"
    plain, blocked = (
        configured(pack, getattr(onnxruntime.GraphOptimizationLevel, level))
        for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")
    )
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    raw = [finder._app.models["recognition"].get_feat(crop) for finder in (plain, blocked)]
    assert (raw[0] != raw[1]).mean() > 0.5, "the configurations differ"
    seen = [[finder.faces(picture) for picture in portraits_of_world] for finder in (plain, blocked)]
    assert [len(faces.boxes) for faces in seen[0]] == [len(faces.boxes) for faces in seen[1]]
    for field, unit, least in (("embeddings", 1e-4, 0.99), ("scores", 1e-4, 0.9), ("boxes", 1e-2, 0.9)):
        first, second = (np.concatenate([getattr(faces, field).ravel() for faces in side]) for side in seen)
        assert np.abs(first - second).max() < 1.5 * unit, field
        assert (first == second).mean() >= least, field
    people = [np.concatenate([faces.embeddings for faces in side]) for side in seen]
    similarities = [cosines(side, side) for side in people]
    assert np.abs(similarities[0] - similarities[1]).max() < 1.5e-4
    assert (similarities[0] == similarities[1]).mean() > 0.9


def test_a_cosine_within_the_rounding_of_a_threshold_is_at_the_threshold():
    threshold = 0.33
    for off in (-4e-5, -1e-6, 0.0, 1e-6, 4e-5):
        cosine = threshold + off
        match = match_people(np.array([[1.0, 0.0]]), np.array([[cosine, np.sqrt(1 - cosine**2)]]))
        check_match(match, threshold, 0.15)
    below = threshold - 6e-5
    with pytest.raises(RejectionError, match="different_person"):
        check_match(match_people(np.array([[1.0, 0.0]]), np.array([[below, np.sqrt(1 - below**2)]])), threshold, 0.15)
