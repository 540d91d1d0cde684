"""The same people in both frames, and who is who."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.records import Record, Rejection
from mcpipe.core.report import Report
from mcpipe.core.shards import Rows
from mcpipe.curate.identity import IdentityParams, face_fault, face_of, face_scores, match_fault, match_people
from mcpipe.curate.recognisers import threshold_for
from mcpipe.curate.scores import Scores
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser

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
    write_decided(Rows((frames, subjects)), work, report, identity, work.params.records_per_shard)


def verified(frames: Record, subjects: Record, analyser: FaceAnalyser, params: IdentityParams) -> Record | Rejection:
    """The assignment of one clip's people across its frames, or why it is refused."""
    boxes, landmarks, embeddings, scores = [], [], [], Scores()
    for i, name in enumerate(("initial", "middle")):
        people = zip(*(subjects.arrays[part][i] for part in ("masks", "boxes", "keypoints")), strict=True)
        found = [face_in(frames.arrays[name], person, analyser, params) for person in people]
        for fault in (one for one in found if isinstance(one, tuple)):
            return scores.rejection(fault, f"{name} frame: ")
        faces = [one for one in found if isinstance(one, Face)]
        measured = [face_scores(frames.arrays[name], face.box) for face in faces]
        for one in measured:
            scores.add(one)
        for fault in filter(None, (face_fault(one, params) for one in measured)):
            return scores.rejection(fault, f"{name} frame: ")
        boxes.append(np.stack([face.box for face in faces]))
        landmarks.append(np.stack([face.landmarks for face in faces]))
        embeddings.append(np.stack([face.embedding for face in faces]))
    match = match_people(embeddings[0], embeddings[1])
    for own in match.similarity:
        scores.add({"similarity": float(own)})
    scores.note(margin=match.margin)
    if fault := match_fault(
        match, threshold_for(analyser.name, params.min_similarity, MIN_SIMILARITY), params.min_margin
    ):
        return scores.rejection(fault)
    ordered = [
        np.stack([parts[0], parts[1][match.order]]).astype(np.float32) for parts in (boxes, landmarks, embeddings)
    ]
    return Record(
        frames.key,
        {"recogniser": analyser.name, **scores.told},
        {
            "order": match.order.astype(np.int64),
            "face_boxes": ordered[0],
            "landmarks": ordered[1],
            "embeddings": ordered[2],
        },
    )


@dataclass(frozen=True)
class Face:
    """The face of one person, in pixels of the frame."""

    box: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray


def face_in(
    picture: np.ndarray,
    person: tuple[np.ndarray, np.ndarray, np.ndarray],
    analyser: FaceAnalyser,
    params: IdentityParams,
) -> Face | tuple[str, str]:
    """The one face of a person (mask, box and joints), looked for in the cut-out of their box; or why there is none."""
    mask, box, joints = person
    x0, y0 = np.maximum(np.floor(box[:2]).astype(int), 0)
    x1, y1 = np.ceil(box[2:]).astype(int)
    corner = np.array([x0, y0], np.float32)
    found = analyser.faces(picture[y0:y1, x0:x1])
    boxes = found.boxes + np.tile(corner, 2)
    chosen = face_of(boxes, mask, joints, params)
    if isinstance(chosen, tuple):
        return chosen
    return Face(boxes[chosen], found.landmarks[chosen] + corner, found.embeddings[chosen])
