"""Records of the FocusDPO branch: pairs as images, and pairs as the generator sees them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mcpipe.core.schemas.typed import TypedRecord

Kind = Literal["single", "multi"]
"""A close-up of one person, or an image of all of them."""


@dataclass(frozen=True, kw_only=True)
class DisruptedPair(TypedRecord):
    """A quadruplet (c, x_r, x_w, x_l) of the Disrupted-Instance Pair dataset, with M_prior; index i is one subject."""

    KIND: ClassVar[str] = "pair"
    STAGE: ClassVar[str] = "dip"

    kind: Kind
    caption: str
    """The prompt c that both images share, after which the region was repainted, too."""
    winner_similarity: float
    """Face-Sim of the winner and the references, in [0, 1]."""
    loser_similarity: float
    """The same of the loser."""
    winner: UInt8[np.ndarray, "height width 3"]
    loser: UInt8[np.ndarray, "height width 3"]
    """The winner with the masked pixels repainted; all others are equal."""
    references: UInt8[np.ndarray, "subjects reference reference 3"]
    masks: Bool[np.ndarray, "subjects height width"]
    """M_prior of every subject."""


@dataclass(frozen=True, kw_only=True)
class EncodedImages(TypedRecord):
    """What a backbone needs of a pair beside its references: latents, text, weights of tokens."""

    STAGE: ClassVar[str] = "encode"

    kind: Kind
    caption: str
    image_size: int
    """Side of both images in pixels."""
    reference_size: int
    """Side of a reference in pixels."""
    winner: Float[np.ndarray, "channels latent_rows latent_columns"]
    loser: Float[np.ndarray, "channels latent_rows latent_columns"]
    masks: Bool[np.ndarray, "subjects token_rows token_columns"]
    """M_prior on the token grid."""
    detail: Float[np.ndarray, "token_rows token_columns"]
    """M_d of the winner."""
    quality: Float[np.ndarray, "token_rows token_columns"]
    """How well the loser matches the winner, in [0, 1], for PatchDPO."""
    prompt_embeds: Float[np.ndarray, "text_tokens text_width"]
    pooled: Float[np.ndarray, " pooled_width"]


@dataclass(frozen=True, kw_only=True)
class EncodedPair(EncodedImages):
    """A pair for FLUX, whose references are latents."""

    KIND: ClassVar[str] = "encoded pair"

    references: Float[np.ndarray, "subjects channels reference_rows reference_columns"]


@dataclass(frozen=True, kw_only=True)
class SdxlPair(EncodedImages):
    """A pair for SDXL, whose IP-Adapter reads features of an image encoder."""

    KIND: ClassVar[str] = "pair for SDXL"

    features: Float[np.ndarray, "subjects image_tokens image_width"]
    """All tokens of a reference, or its one embedding."""
