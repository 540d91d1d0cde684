"""Prompts of reinforcement learning from the output of the stage ``pairs``."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.models.protocols import FaceAnalyser, Picture
from mcpipe.train.rl.rewards import Prompt

logger = logging.getLogger(__name__)


def read_prompts(pairs: Path, spec: AdapterSpec, heldout: FaceAnalyser) -> list[Prompt]:
    """Read the prompts of the training split with the references of their people.

    Raises:
        ValueError: there is no prompt, or the references have another size than the adapter was trained for.
    """
    faces = {face.key: face for face in read_shards(pairs / "faces", PoolFace)}
    heldout_embeddings = {key: heldout_embedding(heldout, face.closeup, key) for key, face in faces.items()}
    prompts = []
    for stored in read_shards(pairs / "rl", PairPrompt):
        references = np.stack([faces[key].reference for key in stored.faces])
        if references.shape[1:3] != (spec.reference_size, spec.reference_size):
            raise ValueError(
                f"the faces of {pairs} measure {references.shape[2]}x{references.shape[1]} px, but the adapter was "
                f"trained with references of {spec.reference_size} px; train it again, or set samples.reference_size "
                "to that"
            )
        embeddings = np.stack([faces[key].embedding for key in stored.faces])
        heldout_rows = np.stack([heldout_embeddings[key] for key in stored.faces])
        prompts.append(Prompt(stored.key, stored.prompt, references, embeddings, heldout_rows))
    if not prompts:
        raise ValueError(f"no prompts in {pairs / 'rl'}; see the report of the stage pairs")
    return prompts


def heldout_embedding(heldout: FaceAnalyser, portrait: Picture, key: str) -> Float[np.ndarray, " D"]:
    """Embedding of the most certain face of a portrait by the held-out recogniser; zeros without a detection."""
    embeddings = heldout.faces(portrait).embeddings
    if len(embeddings):
        return embeddings[0]
    logger.warning("the held-out recogniser sees no face in %s; it counts as never found", key)
    return np.zeros(embeddings.shape[1], np.float32)
