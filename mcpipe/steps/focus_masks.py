"""Pictures of FocusDPO's masks: where the loss looks at which noise level (the idea of the paper's figure 2).

A row per pair: winner, loser, M_prior, M_d, then M' and M for each noise level, of the start adapter.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.core.shards import read_shards, whole_folder
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.features import recorded_matches
from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.flow import noised
from mcpipe.objectives.focus import matched
from mcpipe.report.images import contact_sheet, heat_overlay
from mcpipe.train.preference.data import PairBatch, PairDraws, StoredPairs, pair_batch, read_pairs
from mcpipe.train.preference.losses import focused
from mcpipe.train.preference.params import FocusParams
from mcpipe.train.preference.records import DisruptedPair
from mcpipe.train.preference.trainer import start_network

SHEET, NUMBERS = "masks.png", "focus.json"
TILE_PX, GAP_PX = 96, 3


class MasksParams(Params):
    """What is drawn."""

    num_pairs: int = Field(ge=1)
    """Pairs on the sheet."""
    num_measured: int = Field(ge=1)
    """Pairs over which A_focus is averaged."""
    levels: list[float]
    """Noise levels t in [0, 1]."""
    seed: int = Field(ge=0)
    """Seed of the noise."""
    focus: Annotated[FocusParams, TakenFrom("train.focus")]
    guidance: Annotated[float, Field(ge=0), TakenFrom("flow.guidance")]
    """Guidance scale given to the transformer."""


def write_masks(dip: Path, encoded: Path, start: Path, generator: Path, masks: Path, params: MasksParams) -> None:
    """Write the sheet, and mean A_focus by noise level.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: the start adapter does not fit the pairs.
    """
    pairs = read_pairs(encoded)
    images = {pair.key: pair for pair in read_shards(dip, DisruptedPair)}
    pipeline = load_generator(generator)
    _, network = start_network(pipeline, start, pairs, params.guidance)
    report = Report("masks", ("torch", "diffusers"))
    rows, ratios = [], {level: [] for level in params.levels}
    for position in range(min(params.num_measured, len(pairs))):
        batch = in_order(pairs, position, params)
        fields = {}
        for level in params.levels:
            matches, ratio, mask = looked_at(network, batch, level, params.focus)
            ratios[level].append(ratio)
            fields[level] = (matches, mask)
        if position < params.num_pairs:
            report.keep(pairs.keys[position])
            rows.append(tiles(images[pairs.keys[position]], batch, fields, network.layout.image))
    with whole_folder(masks) as folder:
        contact_sheet(rows, TILE_PX, GAP_PX).save(folder / SHEET)
        means: dict[str, JSON] = {f"{level:g}": round(float(np.mean(values)), 4) for level, values in ratios.items()}
        (folder / NUMBERS).write_text(json.dumps({"a_focus": means}, indent=1) + "\n", encoding="utf-8")
        report.facts = {"pairs": min(params.num_measured, len(pairs)), "a_focus": means}
        report.write(folder)


def in_order(pairs: StoredPairs, place: int, params: MasksParams) -> PairBatch:
    """The pair at a place of the stored order, with noise of its own."""
    draws = PairDraws(params.seed, 1.0, shuffle_references=False)
    alone = pairs.at(place)
    return pair_batch(alone, draws, range(place, place + 1), torch.device("cpu"))


@torch.no_grad()
def looked_at(
    network: ReferenceFlux, batch: PairBatch, level: float, params: FocusParams
) -> tuple[Float[Tensor, " tokens"], float, Float[Tensor, " tokens"]]:
    """M' of all subjects, A_focus and M of a pair at a noise level."""
    device = next(network.parameters()).device
    t = torch.full_like(batch.t, level)
    with recorded_matches(network, params.norm) as matches:
        noisy = noised(batch.winner, batch.noise, t)
        network(noisy.to(device), t.to(device), batch.conditions.to(device))
        scores = matches.mean().cpu()
    fused = focused(scores, batch, params)
    return matched(scores, batch.prior).any(1)[0].float(), float(fused.ratio[0]), fused.mask[0]


def tiles(
    pair: DisruptedPair,
    batch: PairBatch,
    fields: Mapping[float, tuple[Tensor, Tensor]],
    grid: tuple[int, int],
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """A row of the sheet."""

    def over(weights: Tensor, colour: int) -> UInt8[np.ndarray, "H W 3"]:
        return heat_overlay(pair.winner, weights.reshape(grid).numpy(), colour)

    row = [pair.winner, pair.loser, over(batch.prior[0].any(0).float(), 2), over(batch.detail[0], 3)]
    for matches, mask in fields.values():
        row += [over(matches, 0), over(mask, 1)]
    return row
