"""The face pack that only evaluation uses: the detector of the first with a recogniser of its own.

A generator that learned to please the first recogniser gains nothing with the second, unless it drew the right person.
"""

import logging
from pathlib import Path

import numpy as np

from mcpipe.core.shards import whole_folder
from mcpipe.models.faces import InsightFaces
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render, sample_scene
from zoo.build import faces
from zoo.build.cards import Card, Measured, write_card
from zoo.build.data import NAMESPACE, read_frames
from zoo.build.face_scores import scores
from zoo.build.faces import FacesParams, assembled

logger = logging.getLogger(__name__)

PACK = Path("models") / "puppet_heldout"
"""As InsightFace's FaceAnalysis looks for a pack called "puppet_heldout"."""

STRANGERS = 23
"""Stream of the zoo's random numbers that nothing else draws from."""

FRAME_SIZE = (320, 240)
FALSE_SHARE = 0.01
"""Share of the pairs of strangers that each recogniser finds most alike: its mistakes at FAR 1e-2."""

CARD = Card(
    title="Held-out face pack of the puppet world",
    what="`models/puppet_heldout/rec.onnx` is a vision transformer learned with CosFace (112 x 112 to 512 numbers), "
    "for evaluation alone: no stage of the pipeline may see it before. `models/puppet_heldout/det.onnx` is the very "
    "file of the pack `puppet`: finding faces is not what is judged. "
    "`FaceAnalysis(name='puppet_heldout', root=...)` loads both.",
    data="Aligned faces of people of the zoo's own namespace from a stream of their own, none of whom the first "
    "recogniser was taught, each alone, in pairs and by three; softened, moved and tinted as for the first. "
    "The recipe is the section faces_heldout_recogniser of zoo/build/params.yaml; the one below is that of the "
    "measurement.",
    limits="Knows puppets only. It was taught by the same renderer as the first recogniser: people whom the world "
    "makes alike are alike to both, which is what is left of their agreement about strangers.",
    bars=dict(faces.CARD.bars)
    | {
        "stranger_correlation": "correlation of the two recognisers' cosines over pairs of strangers",
        "shared_false_matches": "of the 1 % of strangers most alike to the first, the share that is to the second too",
    },
)


def build(data: Path, detector: Path, recogniser: Path, first: Path, out: Path, params: FacesParams) -> None:
    """Put the pack together in ``out``, with figures and card; ``first`` is the pack that it is held against."""
    with whole_folder(out) as folder:
        pack = folder / PACK
        curves = assembled(pack, detector, recogniser)
        mine, theirs = (
            InsightFaces(place, params.min_score, params.detection_size) for place in (pack, first / faces.PACK)
        )
        metrics = scores(mine, read_frames(data / "frames_val.npz"), params.seed, params.pairs)
        metrics |= agreement(*strangers(theirs, mine, params))
        metrics["megabytes"] = sum(file.stat().st_size for file in pack.iterdir()) / 1e6
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("faces_heldout", metrics, curves, params))


def strangers(first: InsightFaces, second: InsightFaces, params: FacesParams) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 512) by either recogniser of one face each of twice ``params.pairs`` new people."""
    embeddings = []
    for pair in range(params.pairs):
        rng = world_rng(NAMESPACE, params.seed, STRANGERS, pair)
        frame = render(sample_scene(rng, [sample_identity(rng) for _ in range(2)]), 0.0, *FRAME_SIZE)
        seen = [analyser.faces(frame.rgb) for analyser in (first, second)]
        # The detector is the same, and so are the faces and their order.
        if len(seen[0].boxes) == 2 and np.array_equal(seen[0].boxes, seen[1].boxes):
            embeddings.append([detections.embeddings for detections in seen])
    mine, theirs = np.stack(embeddings, axis=1).reshape(2, -1, embeddings[0][0].shape[1])
    return mine, theirs


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How alike the two are wrong about strangers, from embeddings (n, 512) of n different people by each."""
    rows, columns = np.triu_indices(len(first), k=1)
    cosines = [np.sum(vectors[rows] * vectors[columns], axis=1) for vectors in (first, second)]
    wrong = [values > np.quantile(values, 1 - FALSE_SHARE) for values in cosines]
    return {
        "stranger_correlation": float(np.corrcoef(*cosines)[0, 1]),
        "shared_false_matches": float((wrong[0] & wrong[1]).sum() / wrong[0].sum()),
    }
