"""Scores of the tiny SDXL: whether its IP-Adapter draws the person of the reference."""

from mcpipe.models.faces import InsightFaces
from mcpipe.sdxl.backbone import load_sdxl
from zoo.build.faces import PACK
from zoo.build.sdxl_files import IP_ADAPTER
from zoo.build.sdxl_scores import DrawParams, measured
from zoo.scores.draw import GENERATED, Job
from zoo.scores.figures import Figure
from zoo.scores.pictures import drawn_pictures

DRAW = DrawParams(num=24, num_steps=20, guidance=3.0, reference_size=48, min_face_score=0.5, detection_size=256)
MIN_GAIN = 0.1


def measure(job: Job) -> list[Figure]:
    """Draw new people one by one: with their own reference, with another's, and without."""
    folder = job.zoo / "sdxl"
    pipeline = load_sdxl(folder, folder / IP_ADAPTER, folder / "image_encoder")
    faces = InsightFaces(job.zoo / "faces" / PACK, DRAW.min_face_score, DRAW.detection_size)
    scores = measured(pipeline, drawn_pictures(job.seed), faces, DRAW, GENERATED)
    gain = Figure(
        "face_sim_gain", scores["face_sim_right"] - scores["face_sim_others"], DRAW.num, "images", MIN_GAIN, ours=True
    )
    return [gain, *(Figure(name, value, DRAW.num, "images") for name, value in scores.items())]
