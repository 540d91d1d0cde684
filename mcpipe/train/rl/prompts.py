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
    heldout_embeddings = {key: heldout_embedding(heldout, face.reference, key) for key, face in faces.items()}
    prompts = []
    for stored in read_shards(pairs / "rl", PairPrompt):
        references = tuple(faces[key].reference for key in stored.names)  # not copied: a face is in many prompts
        for height, width, _ in (reference.shape for reference in references):
            if (height, width) != (spec.reference_size, spec.reference_size):
                raise ValueError(
                    f"the faces of {pairs} measure {width}x{height} px, but the adapter was trained with references of "
                    f"{spec.reference_size} px; train it again, or set samples.reference_size to that"
                )
        embeddings = np.stack([faces[key].embedding for key in stored.names])
        heldout_rows = np.stack([heldout_embeddings[key] for key in stored.names])
        size = spec.size_at(len(prompts)) if spec.sizes else None
        prompts.append(Prompt(stored.key, stored.prompt, references, embeddings, heldout_rows, size))
    if not prompts:
        raise ValueError(f"no prompts in {pairs / 'rl'}; see the report of the stage pairs")
    return prompts


def heldout_embedding(heldout: FaceAnalyser, reference: Picture, key: str) -> Float[np.ndarray, " D"]:
    """Embedding of a reference by the held-out recogniser, as the evaluation makes it; zeros without a detection."""
    embedding = heldout.faces(reference).identity
    if not embedding.any():
        logger.warning("the held-out recogniser sees no face in %s; it counts as never found", key)
    return embedding
