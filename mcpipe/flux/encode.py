"""Training samples as the generator sees them: latents, text embeddings and masks on the token grid.

All of it is frozen work, done once instead of in every training step.
"""

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.schemas.training import EmptyText, EncodedSample
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import encode_pictures, encode_texts
from mcpipe.flux.tokens import Grid, layout

EMPTY = "_empty"
"""Key of the record that holds the embeddings of the empty text."""


class EncodeParams(Params):
    """How samples become training inputs."""

    min_mask_fraction: float = Field(gt=0, le=1)
    """Part of a token that a mask must cover for the token to count as inside."""
    cache_texts: bool
    """Store text embeddings, too; otherwise training embeds its captions step by step."""
    records_per_shard: RecordsPerShard


def encoded_sample(pipeline: FluxPipeline, sample: Sample, params: EncodeParams) -> EncodedSample:
    """What training needs of a sample.

    Raises:
        ValueError: its images do not fit the generator.
    """
    image_size, reference_size = sample.closeups.shape[1], sample.references.shape[1]
    height, width = sample.target.shape[:2]
    closeup_grid = layout(pipeline, image_size, reference_size).image
    grid = closeup_grid if height == width else layout(pipeline, (width, height), reference_size).image
    bodies = None
    if sample.body_masks is not None:
        bodies = token_masks(sample.body_masks, grid, params.min_mask_fraction)
    prompt_embeds, pooled, closeup_embeds, closeup_pooled = None, None, None, None
    if params.cache_texts:
        prompt_embeds, pooled = _embeddings(pipeline, sample.caption)
        alone = [_embeddings(pipeline, caption) for caption in sample.closeup_captions]
        closeup_embeds, closeup_pooled = (np.stack(each) for each in zip(*alone, strict=True))
    return EncodedSample(
        key=sample.key,
        caption=sample.caption,
        split=sample.split,
        image_size=image_size,
        reference_size=reference_size,
        latents=_array(encode_pictures(pipeline, sample.target[None]))[0],
        reference_latents=_array(encode_pictures(pipeline, sample.references)),
        masks=token_masks(sample.masks, grid, params.min_mask_fraction),
        body_masks=bodies,
        closeup_latents=_array(encode_pictures(pipeline, sample.closeups)),
        closeup_masks=token_masks(sample.closeup_masks, closeup_grid, params.min_mask_fraction),
        closeup_captions=sample.closeup_captions,
        prompt_embeds=prompt_embeds,
        pooled=pooled,
        closeup_prompt_embeds=closeup_embeds,
        closeup_pooled=closeup_pooled,
    )


def encoded_empty(pipeline: FluxPipeline) -> EmptyText:
    """The embeddings of the empty text, which training sometimes puts in place of a caption."""
    prompt_embeds, pooled = _embeddings(pipeline, "")
    return EmptyText(key=EMPTY, prompt_embeds=prompt_embeds, pooled=pooled)


def token_masks(
    masks: Bool[np.ndarray, "subjects height width"], grid: Grid, min_fraction: float
) -> Bool[np.ndarray, "subjects rows columns"]:
    """Masks on the token grid: tokens covered by at least ``min_fraction``; if there are none, all that are touched."""
    rows, columns = grid
    covered = masks.reshape(len(masks), rows, masks.shape[1] // rows, columns, masks.shape[2] // columns).mean((2, 4))
    inside = covered >= min_fraction
    return np.where(inside.any((1, 2), keepdims=True), inside, covered > 0)


def _embeddings(
    pipeline: FluxPipeline, text: str
) -> tuple[Float[np.ndarray, "text_tokens text_width"], Float[np.ndarray, " pooled_width"]]:
    """Embeddings of the tokens of a text, and of the whole."""
    texts = encode_texts(pipeline, [text])
    return _array(texts.tokens)[0], _array(texts.pooled)[0]


def _array(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return tensor.float().cpu().numpy()
