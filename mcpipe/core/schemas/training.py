"""Records of the stage ``encode``, which training reads."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from mcpipe.core.schemas.curation import SplitName
from mcpipe.core.schemas.typed import TypedRecord


@dataclass(frozen=True, kw_only=True)
class EncodedSample(TypedRecord):
    """A training sample as the generator sees it."""

    KIND: ClassVar[str] = "encoded sample"
    STAGE: ClassVar[str] = "encode"

    caption: str
    split: SplitName
    image_size: int
    """Side of a square target in pixels; one of another shape has about the area."""
    reference_size: int
    """Side of a reference in pixels."""
    latents: Float[np.ndarray, "channels latent_rows latent_columns"]
    """Latents of the target."""
    reference_latents: Float[np.ndarray, "references channels reference_rows reference_columns"]
    masks: Bool[np.ndarray, "references token_rows token_columns"]
    """On the token grid of the target."""
    body_masks: Bool[np.ndarray, "references token_rows token_columns"] | None = None
    """Whole people; absent for objects."""
    closeup_latents: Float[np.ndarray, "references channels closeup_latent_rows closeup_latent_columns"]
    """Latents of a square close-up of each subject, the targets of stage 1."""
    closeup_masks: Bool[np.ndarray, "references closeup_rows closeup_columns"]
    """Masks in the close-ups."""
    closeup_captions: tuple[str, ...]
    """A sentence about each close-up; may be empty."""
    prompt_embeds: Float[np.ndarray, "text_tokens text_width"] | None = None
    """Embeddings of the caption's tokens; ``None`` if text embeddings are not stored."""
    pooled: Float[np.ndarray, " pooled_width"] | None = None
    """Pooled embedding of the caption, encoded in the same way."""
    closeup_prompt_embeds: Float[np.ndarray, "references text_tokens text_width"] | None = None
    """Embeddings of the close-ups' captions; ``None`` if text embeddings are not stored."""
    closeup_pooled: Float[np.ndarray, "references pooled_width"] | None = None
    """Pooled embeddings of the close-ups' captions."""


@dataclass(frozen=True, kw_only=True)
class EmptyText(TypedRecord):
    """The embeddings of the empty text."""

    KIND: ClassVar[str] = "empty text"
    STAGE: ClassVar[str] = "encode"

    prompt_embeds: Float[np.ndarray, "text_tokens text_width"]
    pooled: Float[np.ndarray, " pooled_width"]
