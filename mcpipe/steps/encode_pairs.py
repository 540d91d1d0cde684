"""Pairs as preference training reads them: latents, text embeddings, masks and weights on the token grid."""

from pathlib import Path

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import StoredItem, StoredItems, whole_folder, write_shards
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.execution.engine import kept
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.encoders import encode_pictures, encode_texts
from mcpipe.flux.tokens import layout, pack
from mcpipe.steps.pair_weights import pair_weights
from mcpipe.train.preference.records import DisruptedPair, EncodedPair


def write_encoded_pairs(dip: Path, generator: Path, encoded: Path, params: EncodeParams) -> None:
    """Encode every pair of ``dip``.

    Raises:
        ValueError: a pair does not fit the generator.
    """
    report = Report("encode", ("torch", "diffusers", "transformers"))
    stored = StoredItems((dip, DisruptedPair))
    total = len(stored)
    pipeline = load_generator(generator)
    items = ((item.key, item) for item in stored)
    with whole_folder(encoded) as folder, recorded_cuts() as cut:
        records = kept(items, total, lambda item: encoded_pair(pipeline, item, params), report)
        write_shards(records, folder, params.records_per_shard)
        report.facts = cut_facts(cut)
        report.write(folder)


def encoded_pair(pipeline: FluxPipeline, item: StoredItem, params: EncodeParams) -> EncodedPair:
    """What training needs of a stored pair.

    Raises:
        RejectionError: `sizes_differ` where winner and loser do.
        ValueError: the pair is damaged or does not fit the generator.
    """
    pair = item.read(DisruptedPair)
    height, width = pair.winner.shape[:2]
    if height != width:
        raise RejectionError("sizes_differ", f"an image of {height} x {width} pixels is no square")
    grid = layout(pipeline, height, pair.references.shape[1]).image
    texts = encode_texts(pipeline, [pair.caption])
    both = encode_pictures(pipeline, np.stack([pair.winner, pair.loser]))
    tokens = pack(both).float().cpu().numpy()
    winner, loser = both.float().cpu().numpy()
    return EncodedPair(
        key=pair.key,
        kind=pair.kind,
        caption=pair.caption,
        image_size=height,
        reference_size=pair.references.shape[1],
        winner=winner,
        loser=loser,
        references=encode_pictures(pipeline, pair.references).float().cpu().numpy(),
        prompt_embeds=texts.tokens[0].float().cpu().numpy(),
        pooled=texts.pooled[0].float().cpu().numpy(),
        **pair_weights(pair, tokens, grid, params.min_mask_fraction),
    )
