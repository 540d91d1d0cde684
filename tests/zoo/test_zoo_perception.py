"""The zoo's eyes: committed checkpoints, through the adapters that the pipeline uses, on people they never saw.

The bars are those below which curation could not be trusted; the exact figures stand in each checkpoint's metrics.json.
"""

import json

import cv2
import numpy as np
import onnx
import pytest

from mcpipe.models.faces import InsightFaces
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.segmenter import Sam2
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import OBJECT_LABEL, render, render_portrait, sample_scene

ZOO = (
    "pose", "segmenter", "faces", "faces_heldout", "captioner", "generator", "clip", "clip_reward", "dino", "dinov2",
    "hps", "hps_reward", "hpsv3",
)  # fmt: skip

NUM_SCENES = 12


def iou(first, second):
    shared = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None).prod()
    return shared / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared)


def people(pair):
    rng = world_rng("tests of the zoo", pair)
    return [sample_identity(rng) for _ in range(2)]


def shot(pair, session):
    rng = world_rng("tests of the zoo", pair, session)
    return render(sample_scene(rng, people(pair)), 0.5 * session, 320, 240)


@pytest.fixture(scope="module")
def frames():
    return [shot(pair, 1) for pair in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def pose(root):
    return UltralyticsPose(root / "zoo" / "pose" / "pose.pt", 0.4)


@pytest.fixture(scope="module")
def segmenter(root):
    return Sam2(root / "zoo" / "segmenter")


@pytest.fixture(scope="module")
def faces(root):
    return InsightFaces(root / "zoo" / "faces" / "models" / "puppet", 0.5, 256)


def test_pose_finds_everybody_once_with_box_and_joints(frames, pose):
    overlaps, misses = [], []
    for frame in frames:
        people = pose.people(frame.rgb)
        assert len(people.boxes) == 2
        for person in frame.people:
            best = max(range(2), key=lambda index: iou(people.boxes[index], person.box))
            overlaps.append(iou(people.boxes[best], person.box))
            upper = person.keypoints[:7]
            apart = np.linalg.norm(people.keypoints[best][:7, :2] - upper[:, :2], axis=1)
            misses.append(np.median(apart) / person.head_height_px)
    assert np.mean(overlaps) > 0.85
    assert np.mean(misses) < 0.12


@pytest.mark.parametrize("count", [1, 3])
def test_pose_counts_other_groups(pose, count):
    for number in range(4):
        rng = world_rng("tests of the zoo", 100 + number)
        frame = render(sample_scene(rng, [sample_identity(rng) for _ in range(count)]), 0.0, 320, 240)
        assert len(pose.people(frame.rgb).boxes) == count


def test_segmenter_cuts_out_people_and_what_they_hold(frames, segmenter):
    bodies, things = [], []
    for frame in frames:
        labels = [label for label in np.unique(frame.labels) if label and (frame.labels == label).sum() > 60]
        boxes = np.stack([cv2.boundingRect((frame.labels == label).astype(np.uint8)) for label in labels]).astype(float)
        boxes[:, 2:] += boxes[:, :2]
        for label, mask in zip(labels, segmenter.masks(frame.rgb, boxes.astype(np.float32)), strict=True):
            truth = frame.labels == label
            overlap = (truth & mask).sum() / (truth | mask).sum()
            (things if label > OBJECT_LABEL else bodies).append(overlap)
    assert np.mean(bodies) > 0.85
    assert np.quantile(bodies, 0.1) > 0.75
    assert np.mean(things) > 0.4


def test_faces_are_found_where_they_are_and_nowhere_else(frames, faces):
    for frame in frames:
        detections = faces.faces(frame.rgb)
        assert len(detections.boxes) == 2
        for person in frame.people:
            best = max(range(2), key=lambda index: iou(detections.boxes[index], person.face_box))
            assert iou(detections.boxes[best], person.face_box) > 0.5
            size = person.face_box[3] - person.face_box[1]
            assert np.abs(detections.landmarks[best] - person.landmarks).mean() < 0.12 * size


def test_faces_are_found_at_the_generators_size_and_in_portraits(frames, faces):
    for frame in frames[:6]:
        small = cv2.resize(frame.rgb[:, 40:280], (96, 96), interpolation=cv2.INTER_AREA)
        assert len(faces.faces(small).boxes) == 2
    for number in range(6):
        rng = world_rng("tests of the zoo", 200 + number)
        assert len(faces.faces(render_portrait(sample_identity(rng), rng, 160).rgb).boxes) == 1


def test_a_head_turned_away_has_no_face(faces):
    from mcpipe.world.clips import KINDS, WorldParams, film

    params = WorldParams(
        seed=77, width=320, height=240, fps=12, seconds=1.0, good_clips=8, bad_clips_per_kind=1, faces=1,
        portrait_size=96, shots="far", alike=0.0, num_people=2,
    )  # fmt: skip
    for number in range(6):
        script = KINDS["face_away"](world_rng("tests of the zoo", number), number, params)
        assert len(faces.faces(film(script, 0.0, params)).boxes) == 1


def test_recogniser_knows_people_again_in_other_clothes_and_places(faces):
    same, other = [], []
    for pair in range(NUM_SCENES):
        seen = [_embeddings(shot(pair, session), faces) for session in range(2)]
        cosines = seen[0] @ seen[1].T
        same += list(np.diag(cosines))
        other += [cosines[0, 1], cosines[1, 0]]
    assert np.mean(same) > 0.6
    assert np.mean(other) < 0.3
    assert np.mean(np.array(same) > np.max(other)) > 0.8


def _embeddings(frame, faces):
    seen = faces.faces(frame.rgb)
    return np.stack([
        seen.embeddings[max(range(len(seen.boxes)), key=lambda index: iou(seen.boxes[index], person.face_box))]
        for person in frame.people
    ])  # fmt: skip


def test_the_pack_is_routed_as_scrfd_and_arcface(root):
    pack = root / "zoo" / "faces" / "models" / "puppet"
    detector, recogniser = onnx.load(pack / "det.onnx"), onnx.load(pack / "rec.onnx")
    assert len(detector.graph.output) == 9
    (shape,) = [entry.type.tensor_type.shape.dim for entry in recogniser.graph.input]
    assert [side.dim_value for side in shape[1:]] == [3, 112, 112]
    assert sorted(file.name for file in pack.iterdir()) == ["det.onnx", "rec.onnx"]


@pytest.mark.parametrize(
    ("name", "limit", "bars"),
    [
        ("pose", 2.7, {"box_map50": 0.97, "pose_map50": 0.93, "exact_count": 0.97}),
        ("segmenter", 3.6, {"person_iou": 0.85, "person_iou_p10": 0.75}),
        ("faces", 3.6, {"frame_recall": 0.97, "scene_tar_at_far_1e2": 0.95, "generated_tar_at_far_1e2": 0.9}),
    ],
)
def test_measured_figures_meet_their_bars_and_stand_in_the_card(root, name, limit, bars):
    folder = root / "zoo" / name
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))[name]
    card = (folder / "README.md").read_text(encoding="utf-8")
    for metric, bar in bars.items():
        assert figures[metric] >= bar
        assert f"| {metric} | {figures[metric]} |" in card
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < limit * 1e6


def test_checkpoints_tell_no_paths(root):
    tracked = [f for name in ZOO for f in sorted((root / "zoo" / name).rglob("*")) if f.is_file()]
    assert len(tracked) > 20
    for file in tracked:
        data = file.read_bytes()
        for trace in (b"/tmp/", b"/home/", b"/root/", f"{root}/".encode()):
            assert trace not in data, f"{file} names a place of the machine that built it"
