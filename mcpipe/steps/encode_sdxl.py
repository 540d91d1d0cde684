"""Pairs as SDXL with an IP-Adapter reads them: latents, texts, features of references, masks on the token grid."""

from pathlib import Path

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import StoredItem, StoredItems, whole_folder, write_shards
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.execution.engine import kept
from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.tokens import pack
from mcpipe.sdxl.backbone import StableDiffusionXLPipeline
from mcpipe.sdxl.encoders import encode_pictures, encode_references, encode_text
from mcpipe.sdxl.network import token_grid
from mcpipe.steps.pair_weights import pair_weights
from mcpipe.steps.sdxl_files import SdxlFiles
from mcpipe.train.preference.records import DisruptedPair, SdxlPair


def write_sdxl_pairs(dip: Path, files: SdxlFiles, encoded: Path, params: EncodeParams) -> None:
    """Encode every pair of ``dip``; winners and losers of two sizes are counted as ``sizes_differ``.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: a pair does not fit SDXL's grids, or an input is damaged.
    """
    report = Report("encode", ("torch", "diffusers", "transformers"))
    stored = StoredItems((dip, DisruptedPair))
    pipeline = files.load()
    items = ((item.key, item) for item in stored)
    with whole_folder(encoded) as folder, recorded_cuts() as cut:
        records = kept(items, len(stored), lambda item: encoded_pair(pipeline, item, params), report)
        write_shards(records, folder, params.records_per_shard)
        report.facts = cut_facts(cut)
        report.write(folder)


def encoded_pair(pipeline: StableDiffusionXLPipeline, item: StoredItem, params: EncodeParams) -> SdxlPair:
    """What training needs of a stored pair.

    Raises:
        RejectionError: `sizes_differ` where an image is no square.
        ValueError: the pair is damaged or does not fit SDXL's grids.
    """
    pair = item.read(DisruptedPair)
    height, width = pair.winner.shape[:2]
    if height != width:
        raise RejectionError("sizes_differ", f"an image of {height} x {width} pixels is no square")
    grid = token_grid(pipeline, height)
    latents = encode_pictures(pipeline, np.stack([pair.winner, pair.loser]))
    tokens = pack(latents).float().cpu().numpy()
    winner, loser = latents.float().cpu().numpy()
    text, pooled = encode_text(pipeline, pair.caption)
    return SdxlPair(
        key=pair.key,
        kind=pair.kind,
        caption=pair.caption,
        image_size=height,
        reference_size=pair.references.shape[1],
        winner=winner,
        loser=loser,
        features=encode_references(pipeline, list(pair.references)).float().cpu().numpy(),
        prompt_embeds=text.float().cpu().numpy(),
        pooled=pooled.float().cpu().numpy(),
        **pair_weights(pair, tokens, grid, params.min_mask_fraction),
    )
