"""Training stage 2: several people per image (paper, sections 4.2 and 4.3).

    L = L_diff + lambda L_attn  (+ a small balance loss on the routers, which the paper does not mention)

Departures from the paper: attention maps are divided by their peak, since the paper leaves "normalize" open; the
router is trained by a straight-through weight, since the paper's formula has no gradient at one expert per token.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from safetensors.numpy import save_file
from torch import Tensor, nn

from mcpipe.core.params import Params, ShuffleReferences, TakenFrom
from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import AdapterSpec, ExpertParams, read_spec, start_adapter
from mcpipe.flux.attention import AttentionCapture, attention_maps
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.moe_lora import busiest_share, mean_balance, usage_by_kind
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.objectives.idar import Direction, IdarScope, Norm, attention_inside, attention_loss, peak_inside
from mcpipe.objectives.moe import BalanceOver
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import Batch, Draws, EncodedSet, collate, draw, read_encoded
from mcpipe.train.loop.fit import Losses, OnStep
from mcpipe.train.loop.launch import together
from mcpipe.train.loop.outputs import output_folder, save_gathered_adapter, training_log, with_encoder
from mcpipe.train.loop.previews import PreviewSampler
from mcpipe.train.loop.runtime import load_base, mean_over_processes, place_base, process_state, shared_out
from mcpipe.train.supervised import NOISE_BINS, NUM_SCORED, SupervisedParams, parts_of, predicted, train

NUM_MAPS = 4
"""Held-out samples whose attention maps are stored for the report."""
MAP_NOISE = 0.5
"""Noise level t of these maps: the layout is decided there, the faces are not."""


class IdarParams(Params):
    """Identity-disentangled attention regularisation."""

    weight: float = Field(ge=0)
    """Weight lambda of the attention loss; 0 leaves it out."""
    norm: Norm
    direction: Direction


class BalanceParams(Params):
    """The routers' balance loss."""

    weight: float = Field(ge=0)
    over: BalanceOver
    """Tokens over which experts should be used evenly: those of the whole batch, or of every sample alone."""


class TrainMultiParams(SupervisedParams):
    """Settings of stage 2."""

    idar: IdarParams
    experts: ExpertParams | None
    """Experts on the output layers of the feed-forward networks; null keeps the plain adapter of stage 1."""
    shuffle_references: ShuffleReferences
    """Whether references change places, together with their masks, from draw to draw."""
    balance: Annotated[BalanceParams, TakenFrom("balance")]
    scope: Annotated[IdarScope, TakenFrom("idar_scope")]

    def attention_weight(self, step: int) -> float:
        """Weight of the attention loss in an optimiser step, counted from 0."""
        return self.idar.weight if step >= self.scope.start * self.num_steps else 0.0

    def draws(self, *, one_reference: bool) -> Draws:
        """Parameters of the random draws of a batch."""
        return replace(super().draws(one_reference=one_reference), shuffle_references=self.shuffle_references)


def multi_spec(start: AdapterSpec, data: EncodedSet, params: TrainMultiParams) -> AdapterSpec:
    """Specification of the adapter that continues the one of stage 1.

    Raises:
        ValueError: stage 1 was trained for other sizes than those of the samples.
    """
    if (start.image_size, start.reference_size) != (data.image_size, data.reference_size):
        raise ValueError(
            f"the adapter of stage 1 was trained for images of {start.image_size} px and references of "
            f"{start.reference_size} px, but the samples have {data.image_size} and {data.reference_size}"
        )
    return start.model_copy(update={"experts": params.experts, "shift": params.shift, "sizes": data.sizes})


def multi_network(pipeline: FluxPipeline, data: EncodedSet, params: TrainMultiParams) -> ReferenceFlux:
    """The pipeline's transformer with references."""
    return ReferenceFlux(pipeline.transformer, layout(pipeline, data.image_size, data.reference_size), params.guidance)


def train_multi(
    network: ReferenceFlux, data: EncodedSet, params: TrainMultiParams, on_step: OnStep, checkpoint: Checkpoint
) -> dict[str, JSON]:
    """Train the network's adapter; returns facts about the training, with held-out scores before and after it.

    Raises:
        ValueError: the attention of a block is supervised that the network does not have.
    """
    capture = None
    if params.idar.weight:
        capture = AttentionCapture(network.transformer, network.layout, params.idar.direction, params.scope.blocks)
    before = held_out_scores(network, data, params)
    num_done = 0

    def objective(model: nn.Module, batch: Batch) -> Losses:
        return multi_losses(model, batch, params, capture, num_done)

    def count(step: int, metrics: dict[str, float]) -> None:
        nonlocal num_done
        num_done = step + 1
        on_step(step, metrics)

    with capture or nullcontext():
        facts = train(network, data, params, objective, one_reference=False, on_step=count, checkpoint=checkpoint)
    held_out: JSON = {"before": before, "after": held_out_scores(network, data, params)}
    return {**facts, "held_out": held_out}


def multi_losses(
    model: nn.Module, batch: Batch, params: TrainMultiParams, capture: AttentionCapture | None, step: int
) -> Losses:
    """Flow matching, attention inside the faces, and an even spread over the experts, in a step counted from 0."""
    terms = {"flow": flow_loss(predicted(model, batch), batch.clean, batch.noise)}
    metrics, counts = {}, {}
    if capture is not None:
        attention = capture.mean()
        supervised = batch.masks & params.scope.noise.covers(batch.t)[:, None, None]
        terms["attention"] = params.attention_weight(step) * attention_loss(attention, supervised, params.idar.norm)
        metrics = attention_scores(attention.detach(), batch.masks)
        by_noise, counts = scores_by_noise(attention.detach(), batch.masks, batch.t)
        metrics |= by_noise
    if params.experts is not None:
        terms["balance"] = params.balance.weight * mean_balance(model, params.balance.over, mean_over_processes)
        metrics["busiest_expert"] = busiest_share(model)
    return Losses(terms, metrics, counts)


def scores_by_noise(
    attention: Float[Tensor, "batch subjects tokens"],
    masks: Bool[Tensor, "batch subjects tokens"],
    t: Float[Tensor, " batch"],
) -> tuple[dict[str, float], dict[str, int]]:
    """Attention scores per quarter of the noise levels, such as ``attention_inside_t25_50``, and subject counts."""
    metrics, counts = {}, {}
    quarters = (4 * t).long().clamp(max=3)
    for quarter in range(4):
        chosen = quarters == quarter
        num = int(masks[chosen].any(-1).sum())
        for name, score in attention_scores(attention[chosen], masks[chosen]).items():
            label = f"{name}_t{25 * quarter:02d}_{25 * quarter + 25}"
            metrics[label], counts[label] = score, num
    return metrics, counts


def attention_scores(
    attention: Float[Tensor, "batch subjects tokens"], masks: Bool[Tensor, "batch subjects tokens"]
) -> dict[str, float]:
    """Shares in [0, 1] of attention, and of its peaks, on the right face: means over subjects with a mask."""
    present = masks.any(-1)
    return {
        "attention_inside": float(attention_inside(attention, masks)[present].mean()),
        "attention_peak_inside": float(peak_inside(attention, masks)[present].float().mean()),
    }


def held_out_maps(
    network: ReferenceFlux, data: EncodedSet, params: TrainMultiParams
) -> dict[str, Float[Tensor, "subjects rows columns"]]:
    """Attention maps of a few held-out samples by key, at noise level `MAP_NOISE`, from the same noise every time."""
    samples = [
        _held_out(network, data, params, MAP_NOISE, position) for position in range(min(NUM_MAPS, len(data.val)))
    ]
    return {key: maps[0].unflatten(-1, network.layout_of(batch.conditions).image).cpu() for key, maps, batch in samples}


def held_out_scores(network: ReferenceFlux, data: EncodedSet, params: TrainMultiParams) -> dict[str, JSON]:
    """Attention scores per range of noise levels, and shares of tokens per expert, layer and kind of token.

    Means over held-out samples with the same noise at every call; empty without such samples.
    """
    num, levels = min(NUM_SCORED, len(data.val)), list(NOISE_BINS.values())

    def scored(number: int) -> tuple[dict[str, float], dict[str, dict[str, Tensor]]]:
        _, maps, batch = _held_out(network, data, params, levels[number // num], number % num)
        num_text = batch.conditions.text.shape[1]
        num_image = network.layout_of(batch.conditions).num_image_tokens
        usage = usage_by_kind(network.transformer, num_text, num_image)
        scores = attention_scores(maps, batch.masks) if bool(batch.masks.any()) else {}
        return scores, {layer: {kind: share.cpu() for kind, share in kinds.items()} for layer, kinds in usage.items()}

    results = shared_out(network, num * len(levels), scored)
    usages = [usage for _, usage in results]
    attention: dict[str, JSON] = {}
    for place, name in enumerate(NOISE_BINS):
        scores = [score for score, _ in results[place * num : (place + 1) * num] if score]
        if scores:
            attention[name] = {key: sum(score[key] for score in scores) / len(scores) for key in scores[0]}
    experts: dict[str, JSON] = {
        layer: {kind: _mean([usage[layer][kind] for usage in usages]) for kind in kinds}
        for layer, kinds in (usages[0] if usages else {}).items()
    }
    return {"attention": attention, "expert_shares": experts}


def _mean(shares: list[Tensor]) -> list[JSON]:
    return [round(share, 4) for share in torch.stack(shares).mean(0).tolist()]


def _held_out(
    network: ReferenceFlux, data: EncodedSet, params: TrainMultiParams, t: float, position: int
) -> tuple[str, Float[Tensor, "one subjects tokens"], Batch]:
    """Key, attention maps and batch of a held-out sample at noise level ``t``."""
    draws = Draws(params.seed, 1, 1.0, 0.0, one_reference=False)
    drawn = draw(data, data.val, draws, position)
    batch = collate([drawn], next(network.parameters()).device)
    level = torch.full_like(batch.t, t)
    noisy = noised(batch.clean, batch.noise, level)
    maps = attention_maps(network, noisy, level, batch.conditions, params.idar.direction)
    return drawn[0].key, maps.flatten(2), batch


@dataclass(frozen=True)
class MultiTraining:
    """Everything that the result of this training depends on."""

    encode: Path
    train_single: Path
    generator: Path
    params: TrainMultiParams


def write_multi(encode: Path, train_single: Path, generator: Path, out: Path, params: TrainMultiParams) -> None:
    """Write the adapter that continues stage 1, its curves, attention maps before and after, and a report."""
    together(params.processes, parts_of(params), _write_multi, encode, train_single, generator, out, params)


def _write_multi(encode: Path, train_single: Path, generator: Path, out: Path, params: TrainMultiParams) -> None:
    """One process's part in it."""
    process_state()
    report = Report("train_multi", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    spec = multi_spec(read_spec(train_single), data, params)
    pipeline = load_base(generator)
    data = with_encoder(data, pipeline)
    start_adapter(pipeline, train_single, spec, params.seed)
    network = multi_network(pipeline, data, params)
    place_base(pipeline)
    training = MultiTraining(encode, train_single, generator, params)
    checkpoint = Checkpoint(progress_of(out) / fingerprint(training, report.packages))
    sampler = PreviewSampler(pipeline, network, data, params.shift, one_reference=False)
    with output_folder(out) as folder:
        before = held_out_maps(network, data, params)
        with training_log(sampler, params.pictures_every, checkpoint, folder) as on_step:
            report.facts = train_multi(network, data, params, on_step, checkpoint)
        after = held_out_maps(network, data, params)
        places = {key: place for place, key in enumerate(data.val.keys)}
        (folder / "attention").mkdir()
        for key in before:
            masks = data.val[places[key]].masks.unflatten(-1, before[key].shape[1:])
            arrays = {"before": before[key].numpy(), "after": after[key].numpy(), "masks": masks.numpy()}
            save_file(arrays, folder / "attention" / f"{key}.safetensors")
        save_gathered_adapter(pipeline, spec, folder)
        for key in data.train.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()
