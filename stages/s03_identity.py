"""Stage 3: the same people in both frames, and who is who."""

from pathlib import Path

import numpy as np

from mcpipe.curate.identity import IdentityParams, face_of, face_sharpness, match_people
from mcpipe.engine import kept
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.records import Record, Rejection
from mcpipe.report import Report
from mcpipe.shards import join_shards, read_shards, whole_folder, write_shards


def run(frames: Path, subjects: Path, faces: Path, identity: Path, params: IdentityParams) -> None:
    """Write faces, embeddings and the assignment of every clip whose people are verified."""
    analyser = InsightFaces(faces, params.min_face_score, params.detection_size)
    report = Report("identity", ("insightface", "onnxruntime"))

    def decide(records: tuple[Record, ...]) -> Record | Rejection:
        of_frames, of_subjects = records
        return verified(of_frames, of_subjects, analyser, params)

    total = sum(1 for _ in read_shards(subjects))
    items = ((records[0].key, records) for records in join_shards(frames, subjects))
    with whole_folder(identity) as folder:
        write_shards(kept(items, total, decide, report), folder, params.records_per_shard)
        report.write(folder)


def verified(frames: Record, subjects: Record, analyser: FaceAnalyser, params: IdentityParams) -> Record | Rejection:
    """The assignment of one clip's people across its frames, or why it is refused."""
    boxes, landmarks, embeddings = [], [], []
    for i, name in enumerate(("initial", "middle")):
        found = faces_of(
            frames.arrays[name], subjects.arrays["masks"][i], subjects.arrays["boxes"][i], analyser, params
        )
        if isinstance(found, Rejection):
            return Rejection(found.reason, f"{name} frame: {found.detail}")
        for parts, part in zip((boxes, landmarks, embeddings), found, strict=True):
            parts.append(part)
    match = match_people(embeddings[0], embeddings[1], params)
    if isinstance(match, tuple):
        return Rejection(*match)
    ordered = [
        np.stack([parts[0], parts[1][match.order]]).astype(np.float32) for parts in (boxes, landmarks, embeddings)
    ]
    return Record(
        frames.key,
        {"similarity": [round(float(value), 4) for value in match.similarity], "margin": round(match.margin, 4)},
        {
            "order": match.order.astype(np.int64),
            "face_boxes": ordered[0],
            "landmarks": ordered[1],
            "embeddings": ordered[2],
        },
    )


def faces_of(
    picture: np.ndarray, masks: np.ndarray, boxes: np.ndarray, analyser: FaceAnalyser, params: IdentityParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | Rejection:
    """Boxes, landmarks and embeddings of the one face of every person, looked for in the cut-out of their box."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for mask, box in zip(masks, boxes, strict=True):
        x0, y0 = np.maximum(np.floor(box[:2]).astype(int), 0)
        x1, y1 = np.ceil(box[2:]).astype(int)
        corner = np.array([x0, y0], np.float32)
        found = analyser.faces(picture[y0:y1, x0:x1])
        face_boxes = found.boxes + np.tile(corner, 2)
        chosen = face_of(face_boxes, mask, params)
        if isinstance(chosen, tuple):
            return Rejection(*chosen)
        sharp = face_sharpness(picture, face_boxes[chosen])
        if sharp < params.min_face_sharpness:
            return Rejection("face_blurred", f"sharpness {sharp:.1f}")
        parts.append((face_boxes[chosen], found.landmarks[chosen] + corner, found.embeddings[chosen]))
    first, second, third = (np.stack(column) for column in zip(*parts, strict=True))
    return first, second, third
