"""Faces that fill the picture are one face each, and strips of pixels are no faults."""

import numpy as np
import pytest

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
