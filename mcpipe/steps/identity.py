"""Assignment of the people of both frames."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import FRAMES, ClipPeople, FramePair, VerifiedIdentity
from mcpipe.core.shards import StoredItems
from mcpipe.curate.identity import IdentityParams, check_face, check_match, face_scores, match_people, own_face
from mcpipe.curate.recognisers import threshold_for
from mcpipe.curate.scores import Scores
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser, Picture

MIN_SIMILARITY = "identity.min_similarity"


@dataclass(frozen=True)
class IdentityWork:
    """What this stage does to every clip."""

    faces: Path
    params: IdentityParams
    analyser: Callable[[Path, float, int], FaceAnalyser] = InsightFaces

    def load(self) -> Decide:
        """Load the face analyser; the decision on one clip."""
        analyser = self.analyser(self.faces, self.params.min_face_score, self.params.detection_size)
        threshold_for(analyser.name, self.params.min_similarity, MIN_SIMILARITY)
        return partial(verified, analyser=analyser, params=self.params)


def write_identity(work: IdentityWork, frames: Path, subjects: Path, identity: Path) -> None:
    """Write the verified assignments of the clips in ``subjects``."""
    report = Report("identity", ("insightface", "onnxruntime"))
    write_decided(
        StoredItems((frames, FramePair), (subjects, ClipPeople)), work, report, identity, work.params.records_per_shard
    )


def verified(
    frames: FramePair, subjects: ClipPeople, analyser: FaceAnalyser, params: IdentityParams
) -> VerifiedIdentity:
    """The assignment of one clip's people across its frames.

    Raises:
        RejectionError: a face is absent or unusable, or the people are not surely the same.
    """
    boxes, landmarks, embeddings, scores = [], [], [], Scores()
    for i, (name, picture) in enumerate(zip(FRAMES, frames.images, strict=True)):
        people = zip(subjects.masks[i], subjects.boxes[i], subjects.keypoints[i], strict=True)
        with scores.kept(f"{name} frame: "):
            faces = [face_in(picture, person, analyser, params) for person in people]
            measured = [face_scores(picture, face.box) for face in faces]
            for face in measured:
                scores.add(face)
            for face in measured:
                check_face(face, params)
        boxes.append(np.stack([face.box for face in faces]))
        landmarks.append(np.stack([face.landmarks for face in faces]))
        embeddings.append(np.stack([face.embedding for face in faces]))
    match = match_people(embeddings[0], embeddings[1])
    for own in match.similarity:
        scores.add({"similarity": float(own)})
    scores.note(margin=match.margin)
    with scores.kept():
        check_match(match, threshold_for(analyser.name, params.min_similarity, MIN_SIMILARITY), params.min_margin)
    face_boxes, points, vectors = (
        np.stack([parts[0], parts[1][match.order]]).astype(np.float32) for parts in (boxes, landmarks, embeddings)
    )
    return VerifiedIdentity(
        key=frames.key,
        recogniser=analyser.name,
        scores=scores.measured,
        order=match.order.astype(np.int64),
        face_boxes=face_boxes,
        landmarks=points,
        embeddings=vectors,
    )


@dataclass(frozen=True)
class DetectedFace:
    """The face of one person, in pixels of the frame."""

    box: Float[np.ndarray, " 4"]
    landmarks: Float[np.ndarray, "5 2"]
    embedding: Float[np.ndarray, " D"]


def face_in(
    picture: Picture,
    person: tuple[np.ndarray, np.ndarray, np.ndarray],
    analyser: FaceAnalyser,
    params: IdentityParams,
) -> DetectedFace:
    """The only face of a person (mask, box and joints), detected in the crop of their box.

    Raises:
        RejectionError: there is no face or there are several.
    """
    mask, box, joints = person
    x0, y0 = np.maximum(np.floor(box[:2]).astype(int), 0)
    x1, y1 = np.ceil(box[2:]).astype(int)
    corner = np.array([x0, y0], np.float32)
    detections = analyser.faces(picture[y0:y1, x0:x1])
    boxes = detections.boxes + np.tile(corner, 2)
    chosen = own_face(boxes, mask, joints, params)
    return DetectedFace(boxes[chosen], detections.landmarks[chosen] + corner, detections.embeddings[chosen])
