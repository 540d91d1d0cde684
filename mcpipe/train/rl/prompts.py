"""Prompts of reinforcement learning from the output of the stage ``pairs``."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

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
    faces = {record.key: record for record in read_shards(pairs / "faces")}
    heldout_embeddings = {
        key: heldout_embedding(heldout, record.arrays["closeup"], key) for key, record in faces.items()
    }
    prompts = []
    for record in read_shards(pairs / "rl"):
        keys = record.texts("faces")
        references = np.stack([faces[key].arrays["reference"] for key in keys])
        if references.shape[1:3] != (spec.reference_size, spec.reference_size):
            raise ValueError(
                f"the faces of {pairs} measure {references.shape[2]}x{references.shape[1]} px, but the adapter was "
                f"trained with references of {spec.reference_size} px; train it again, or set samples.reference_size "
                "to that"
            )
        embeddings = np.stack([faces[key].arrays["embedding"] for key in keys])
        heldout_rows = np.stack([heldout_embeddings[key] for key in keys])
        prompts.append(Prompt(record.key, record.text("prompt"), references, embeddings, heldout_rows))
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
