"""The face pack: detector and recogniser in InsightFace's layout, with figures of how they work together."""

import json
import logging
import shutil
from pathlib import Path

from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.models.faces import InsightFaces
from zoo.build.cards import CURVES, Card, Measured, write_card
from zoo.build.data import read_frames
from zoo.build.face_scores import scores

logger = logging.getLogger(__name__)

PACK = Path("models") / "puppet"
"""As InsightFace's FaceAnalysis looks for a pack called "puppet"."""

CARD = Card(
    title="Face pack of the puppet world",
    what="`models/puppet/det.onnx` is an SCRFD-type detector with five landmarks at strides 8, 16 and 32, "
    "`models/puppet/rec.onnx` an ArcFace recogniser (112 x 112 to 512 numbers); "
    "`FaceAnalysis(name='puppet', root=...)` loads both.",
    data="Detector: rendered scenes at zooms from a third to three, a third of them softened to the resolution of the "
    "tiny generator; people who look away are background. Recogniser: aligned faces of people of the zoo's own "
    "namespace, each in many scenes, softened, moved and tinted. Their recipes are the sections face_detector "
    "and face_recogniser of zoo/build/params.yaml; the one below is that of the measurement.",
    limits="Knows puppets only. People who differ in nothing but the geometry of the face are told apart poorly at the "
    "generator's resolution, where a face is 25 pixels wide.",
    bars={
        "frame_recall": "share of clearly visible faces found at IoU 0.5 in frames of 0 to 3 people",
        "frame_false_per_picture": "boxes that touch no face; in a tenth of the pictures somebody looks away",
        "frame_box_iou": "mean overlap of found and true boxes",
        "frame_landmark_error": "mean distance of landmarks over the size of the face",
        "scene_recall": "faces found in scenes of two people",
        "scene_same_cosine": "mean cosine of one person in two scenes, in other clothes and light",
        "scene_same_cosine_p10": "its 10th percentile",
        "scene_other_cosine": "mean cosine of strangers",
        "scene_other_cosine_p99": "its 99th percentile: a threshold for a false match in 100",
        "scene_other_cosine_p999": "a threshold for a false match in 1000",
        "scene_tar_at_far_1e2": "same people in two scenes accepted where 1 % of strangers are",
        "scene_tar_at_far_1e3": "the same where 0.1 % of strangers are",
        "generated_recall": "faces found in scenes at the generator's 96 pixels",
        "generated_tar_at_far_1e2": "acceptance there",
        "generated_tar_at_far_1e3": "and where 0.1 % of strangers are accepted",
        "portrait_recall": "faces found in head-and-shoulders pictures",
    },
)


class FacesParams(Params):
    """How the pack is measured."""

    seed: int
    """Seed of the people of the measurement."""
    pairs: int = Field(ge=2)
    """Pairs of new people, each seen in two scenes."""
    detection_size: int = Field(ge=64)
    """Side in pixels at which the detector sees an image."""
    min_score: float = Field(ge=0, le=1)
    """Certainty from which a face counts."""


def build(data: Path, detector: Path, recogniser: Path, out: Path, params: FacesParams) -> None:
    """Put the pack together in ``out``, with its figures and card."""
    with whole_folder(out) as folder:
        pack = folder / PACK
        curves = assembled(pack, detector, recogniser)
        analyser = InsightFaces(pack, params.min_score, params.detection_size)
        metrics = scores(analyser, read_frames(data / "frames_val.npz"), params.seed, params.pairs)
        metrics["megabytes"] = sum(file.stat().st_size for file in pack.iterdir()) / 1e6
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("faces", metrics, curves, params))


def assembled(pack: Path, detector: Path, recogniser: Path) -> dict[str, list[float]]:
    """Copy the two into a folder ``models/NAME``; returns the curves of both, under their names."""
    pack.mkdir(parents=True)
    curves = {}
    for part, file, name in ((detector, "det.onnx", "detector"), (recogniser, "rec.onnx", "recogniser")):
        shutil.copyfile(part / file, pack / file)
        learned = json.loads((part / CURVES).read_text(encoding="utf-8"))
        curves |= {f"{name}_{term}": values for term, values in learned.items()}
    return curves
