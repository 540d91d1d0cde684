"""Scores of a face pack: detection, and verification in clips and at the generator's size."""

import tempfile
from pathlib import Path

import numpy as np

from mcpipe.core.progress import track
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.models.video import read_clip
from mcpipe.world.scene import RenderedFrame, render
from zoo.build.crops import FRAME
from zoo.build.face_scores import Tally
from zoo.scores.draw import CLIP, GENERATED, LATEST_S, Job, Square, meetings, square_of, stream, write_video
from zoo.scores.figures import Figure
from zoo.scores.pose import SHOTS, Kind, frames
from zoo.scores.recognition import (
    CLEARLY_VISIBLE,
    Comparison,
    Sighting,
    compared,
    embeddings_at,
    threshold_at,
    verdict,
)

MIN_SCORE = 0.5
DETECTION_SIZE = 256
"""As in params.yaml."""

NUM_FRAMES = 200
CLIP_PEOPLE, CLIP_ROUNDS = 100, 2
SQUARE_PEOPLE, SQUARE_ROUNDS = 100, 3
FAR = (1e-2, 1e-3)


def measure(job: Job) -> list[Figure]:
    """The pack that the pipeline uses."""
    faces = load(job.zoo, "faces", "puppet")
    detection = (
        figure for prefix, kind in SHOTS.items() for figure in detection_figures(faces, job.seed, prefix, kind)
    )
    return [*detection, *verification_figures(faces, job.seed, ours=False)]


def measure_heldout(job: Job) -> list[Figure]:
    """The second pack, and how independent of the first it is."""
    first, second = load(job.zoo, "faces", "puppet"), load(job.zoo, "faces_heldout", "puppet_heldout")
    return [*verification_figures(second, job.seed, ours=True), *independence(first, second, job.seed)]


def load(zoo: Path, folder: str, name: str) -> InsightFaces:
    """A pack of the zoo, set up as the pipeline's stages set it up."""
    return InsightFaces(zoo / folder / "models" / name, MIN_SCORE, DETECTION_SIZE)


def detection_figures(faces: FaceAnalyser, seed: int, prefix: str, kind: Kind) -> list[Figure]:
    """Figures of detection alone, on frames of a kind."""
    tally = Tally()
    for frame in track(frames(seed, kind, NUM_FRAMES), NUM_FRAMES, f"{prefix}faces in frames"):
        tally.add(frame.people, faces.faces(frame.rgb))
    metrics = tally.metrics("frame")
    return [
        Figure(f"{prefix}recall", metrics["frame_recall"], tally.wanted, "faces", 0.97),
        Figure(
            f"{prefix}landmark_error", metrics["frame_landmark_error"], len(tally.overlaps), "faces", 0.05, below=True
        ),
        Figure(f"{prefix}false_per_frame", metrics["frame_false_per_picture"], NUM_FRAMES, "frames"),
    ]


def verification_figures(faces: FaceAnalyser, seed: int, *, ours: bool) -> list[Figure]:
    """Verification in clips, from the initial to the middle frame and from clip to clip, and in small squares."""
    clips, clip_scenes = clip_sightings(faces, seed)
    small = compared(square_sightings(faces, seed))
    pairs = {
        "clip": (clips, clips.same & clip_scenes),
        "other_clip": (clips, clips.same & ~clip_scenes),
        "generated_size": (small, small.same),
    }
    figures = []
    for name, (comparison, genuine) in pairs.items():
        result = verdict(comparison.cosines, genuine, ~comparison.same, FAR)
        bars = (0.85, None) if name == "generated_size" else (0.97, 0.85)
        of = f"genuine and {result.impostor} impostor pairs"
        for rate, bar, digits in zip(FAR, bars, ("1e2", "1e3"), strict=True):
            own = (ours or name == "other_clip") and bar is not None
            figures.append(Figure(f"{name}_tar_at_far_{digits}", result.rates[rate], result.genuine, of, bar, ours=own))
    return figures


def clip_sightings(faces: FaceAnalyser, seed: int) -> tuple[Comparison, np.ndarray]:
    """People in decoded clips; all pairs, and which of them are from one clip."""
    sightings = []
    total = CLIP_PEOPLE * CLIP_ROUNDS // 2
    with tempfile.TemporaryDirectory() as scratch:
        for number, who, scene in track(meetings(seed, "clips", CLIP_PEOPLE, CLIP_ROUNDS), total, "faces in clips"):
            file, truth = write_video(Path(scratch), number, scene)
            decoded = read_clip(file, round(CLIP.seconds * CLIP.fps))
            file.unlink()
            for moment, (rgb, frame) in enumerate(zip((decoded.initial, decoded.middle), truth, strict=True)):
                sightings += seen(faces, rgb, frame, (number, moment), who)
    comparison = compared(sightings)
    return comparison, comparison.same_scene


def seen(
    faces: FaceAnalyser, rgb: np.ndarray, frame: RenderedFrame, when: tuple[int, int], who: tuple[int, ...]
) -> list[Sighting]:
    """Everybody whose face is clearly visible in a frame of scene and moment ``when``."""
    embeddings = embeddings_at(faces, rgb, np.stack([person.face_box for person in frame.people]))
    return [
        Sighting(name, *when, embedding)
        for name, person, embedding in zip(who, frame.people, embeddings, strict=True)
        if person.face_visible >= CLEARLY_VISIBLE
    ]


def small_squares(seed: int) -> list[tuple[int, tuple[int, ...], Square]]:
    """Squares in which people meet again in other clothes, with number and people."""
    total = SQUARE_PEOPLE * SQUARE_ROUNDS // 2
    drawn = []
    for number, who, scene in track(meetings(seed, "pairs", SQUARE_PEOPLE, SQUARE_ROUNDS), total, "squares"):
        rng = stream(seed, "pairs", 3, number)
        frame = render(scene, float(rng.uniform(0.0, LATEST_S)), *FRAME)
        drawn.append((number, who, square_of(scene, frame, rng)))
    return drawn


def square_sightings(faces: FaceAnalyser, seed: int) -> list[Sighting]:
    """People in squares of the generator's size."""
    return [
        Sighting(name, number, 0, embedding)
        for number, who, square in small_squares(seed)
        for name, embedding in zip(who, at_generated_size(faces, square.sized(GENERATED), square), strict=True)
    ]


def at_generated_size(faces: FaceAnalyser, picture: np.ndarray, square: Square) -> list[np.ndarray]:
    """Embeddings of the faces in an image of the generator's size that shows a square."""
    return embeddings_at(faces, picture, square.faces * GENERATED / len(square.rgb))


def independence(first: FaceAnalyser, second: FaceAnalyser, seed: int) -> list[Figure]:
    """Agreement of two recognisers about strangers in small squares: correlation, and common false accepts."""
    first_pairs, second_pairs = (compared(square_sightings(faces, seed)) for faces in (first, second))
    apart = np.triu(~first_pairs.same, k=1) & ~np.isnan(first_pairs.cosines) & ~np.isnan(second_pairs.cosines)
    mine, theirs = first_pairs.cosines[apart], second_pairs.cosines[apart]
    fooled = mine > threshold_at(mine, FAR[0])
    common = float((theirs[fooled] > threshold_at(theirs, FAR[0])).mean())
    return [
        Figure("impostor_correlation", float(np.corrcoef(mine, theirs)[0, 1]), len(mine), "impostor pairs"),
        Figure("shared_false_accepts_at_1e2", common, int(fooled.sum()), "false accepts of the first pack"),
    ]
