"""Settings of preference training on a random tiny generator, an inpainter that paints noise, a recogniser."""

import numpy as np

from mcpipe.flux.inpainting import InpaintParams
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.protocols import Faces
from mcpipe.steps.dip import DipParams
from mcpipe.train.preference.params import FocusParams, PreferenceParams

FOCUS = FocusParams(tau=0.1, gamma=0.3, norm="cosine", reduction="mask")
RATES = {"tiny": 1e-2, "paper_literal": 1e-8}
PREFERENCE = PreferenceParams(
    num_steps=3, batch_size=2, rank=3, beta=1000.0, form="velocity", preset="tiny", learning_rates=RATES,
    weight_decay=0.0, max_grad_norm=1.0, focus=FOCUS, shift=1.5, guidance=1.0, shuffle_references=True,
)  # fmt: skip
DIP = DipParams(
    winner="real", kinds=["single", "multi"], split="train", max_pairs=None, seed=0, growth=0.1,
    min_winner_similarity=0.5, min_disruption=0.2, inpaint=InpaintParams(num_steps=2, guidance=1.0),
    sample=SampleParams(num_steps=2, guidance=1.0, shift=2.0), min_face_score=0.5, detection_size=64,
    min_person_score=0.4, records_per_shard=4,
)  # fmt: skip


class NoisyInpainter:
    """Repaints a mask with noise of the seed."""

    def repainted(self, picture, mask, text, *, seed):
        assert text
        noise = np.random.default_rng(seed).integers(0, 256, picture.shape, dtype=np.uint8)
        return np.where(mask[..., None], noise, picture)


class Recogniser:
    """Gives every picture the embeddings that a function finds in it."""

    name = "stand_in"

    def __init__(self, embeddings_of):
        self._embeddings_of = embeddings_of

    def faces(self, picture):
        embeddings = np.asarray(self._embeddings_of(picture), np.float32).reshape(-1, 2)
        num = len(embeddings)
        boxes = np.tile(np.array([4, 4, 12, 12], np.float32), (num, 1))
        return Faces(boxes, np.ones(num, np.float32), np.zeros((num, 5, 2), np.float32), embeddings)
