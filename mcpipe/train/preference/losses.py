"""The losses of every arm on a batch of pairs.

The policy sees winners and losers in one pass; so does the reference, which is the same network without the added LoRA
and without a gradient, and whose pass gives FocusDPO's features. Departures from the paper: the mean over tokens is
weighted by M^2, so that small masks count as much as large ones; the loser has the winner's mask; S is the reference
network's; a pair whose mask is empty is left out.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.network import Conditions
from mcpipe.objectives.dpo import (
    Form,
    PairErrors,
    TokenErrors,
    as_noise_errors,
    dpo_loss,
    implicit_reward,
    masked_error,
    patch_dpo_loss,
    token_errors,
)
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.objectives.focus import Focus, focus, structure_mask
from mcpipe.sdxl.network import RegionConditions
from mcpipe.train.loop.fit import Losses
from mcpipe.train.preference.backbones import Network, matches_of, reference_of
from mcpipe.train.preference.data import PairBatch
from mcpipe.train.preference.params import Arm, FocusParams, PreferenceParams

C = TypeVar("C", bound=Conditions | RegionConditions)
NUM_BINS = 4
"""Equal ranges of noise levels, for which accuracy and A_focus have curves of their own."""


@dataclass(frozen=True)
class Both:
    """Errors of one network on the tokens of winners and losers."""

    winner: TokenErrors
    loser: TokenErrors


def preference_losses(
    model: nn.Module, network: Network, batch: PairBatch, arm: Arm, params: PreferenceParams
) -> Losses:
    """The loss of an arm; ``model`` is the network as the engine wraps it."""
    if arm == "sft":
        velocity = model(noised(batch.winner, batch.noise, batch.t), batch.t, batch.conditions)
        if params.form == "velocity":
            return Losses({"flow": flow_loss(velocity, batch.winner, batch.noise)})
        return Losses({"flow": as_noise_errors(token_errors(velocity, batch.winner, batch.noise), batch.t).mean()})
    policy = errors_of(model, batch)
    if arm == "patch_dpo":
        own = in_form(policy, batch.t, params.form)
        return Losses({"patch_dpo": patch_dpo_loss(own.winner, own.loser, batch.quality).mean()})
    if arm == "dpo":
        with reference_of(network):
            reference = errors_of(model, batch)
        everywhere = torch.ones_like(batch.detail)
        return contrasted("dpo", policy, reference, everywhere, batch.t, params)
    num_winners = len(batch.winner)
    with reference_of(network), matches_of(network, params.focus.norm, num_winners) as matches:
        reference = errors_of(model, batch)
        scores = matches.mean()[:num_winners]
    fused = focused(scores, batch, params.focus)
    losses = contrasted("focus_dpo", policy, reference, fused.mask, batch.t, params)
    metrics, counts = focus_metrics(fused, batch)
    return Losses(losses.terms, losses.metrics | metrics, losses.counts | counts)


def errors_of(model: nn.Module, batch: PairBatch) -> Both:
    """Errors of the velocity on both images of every pair: same noise, same level, references in both."""
    clean, noise = torch.cat([batch.winner, batch.loser]), batch.noise.repeat(2, 1, 1)
    t = batch.t.repeat(2)
    velocity = model(noised(clean, noise, t), t, twice(batch.conditions))
    return Both(*token_errors(velocity, clean, noise).chunk(2))


def in_form(both: Both, t: Tensor, form: Form) -> Both:
    """Errors of the velocity as those of the form that is chosen."""
    if form == "velocity":
        return both
    return Both(as_noise_errors(both.winner, t), as_noise_errors(both.loser, t))


def twice(conditions: C) -> C:
    """The conditions of winners, and again of losers."""
    return replace(
        conditions,
        **{name: torch.cat([each, each]) for name, each in vars(conditions).items() if isinstance(each, Tensor)},
    )


def focused(scores: Float[Tensor, "batch slots tokens"], batch: PairBatch, params: FocusParams) -> Focus:
    """M and A_focus of every pair, from the scores of its winner at its noise level."""
    structure = structure_mask(scores, batch.prior)
    return focus(structure, batch.detail, batch.prior.any(1), params.tau, params.gamma)


def contrasted(name: str, policy: Both, reference: Both, mask: Tensor, t: Tensor, params: PreferenceParams) -> Losses:
    """The DPO loss under a mask, mean over pairs whose mask is not empty, with its margin and accuracy."""
    policy, reference = in_form(policy, t, params.form), in_form(reference, t, params.form)
    errors = PairErrors(*(
        masked_error(each, mask, params.focus.reduction)
        for each in (policy.winner, reference.winner, policy.loser, reference.loser)
    ))  # fmt: skip
    margin, used = implicit_reward(errors, params.beta), mask.any(-1)
    loss = (dpo_loss(margin) * used).sum() / used.sum().clamp(min=1)
    metrics, counts = margin_metrics(margin.detach(), errors, used, t)
    return Losses({name: loss}, metrics, counts)


@torch.no_grad()
def margin_metrics(
    margin: Tensor, errors: PairErrors, used: Tensor, t: Tensor
) -> tuple[dict[str, float], dict[str, int]]:
    """Implicit reward margin, accuracy in all and per range of noise levels, gains of both images, pairs left out."""
    num = int(used.sum())
    values = {
        "margin": margin,
        "margin_size": margin.abs(),
        "accuracy": (margin > 0).float(),
        "winner_gain": errors.winner_reference - errors.winner,
        "loser_gain": errors.loser_reference - errors.loser,
    }
    metrics = {name: mean_of(value[used]) for name, value in values.items()}
    counts = dict.fromkeys(values, num)
    by_bin, bin_counts = per_bin("accuracy", values["accuracy"][used], t[used])
    return metrics | by_bin | {"left_out": 1 - num / len(used)}, counts | bin_counts


@torch.no_grad()
def focus_metrics(fused: Focus, batch: PairBatch) -> tuple[dict[str, float], dict[str, int]]:
    """A_focus, in all and per range of noise levels, area and mean weight of M, share of pairs with M_s alone."""
    metrics = {
        "focus_ratio": mean_of(fused.ratio),
        "mask_area": mean_of((fused.mask > 0).float().mean(-1)),
        "mask_weight": mean_of(fused.mask.mean(-1)),
        "prior_area": mean_of(batch.prior.any(1).float().mean(-1)),
    }
    by_bin, counts = per_bin("focus_ratio", fused.ratio, batch.t)
    return metrics | by_bin, counts


def per_bin(name: str, values: Tensor, t: Tensor) -> tuple[dict[str, float], dict[str, int]]:
    """Means per range of noise levels, such as ``accuracy_t25_50``, and the numbers of pairs behind them."""
    metrics, counts = {}, {}
    bins = (NUM_BINS * t).long().clamp(max=NUM_BINS - 1)
    width = 100 // NUM_BINS
    for number in range(NUM_BINS):
        label = f"{name}_t{width * number:02d}_{width * (number + 1)}"
        chosen = values[bins == number]
        metrics[label], counts[label] = mean_of(chosen), len(chosen)
    return metrics, counts


def mean_of(values: Tensor) -> float:
    """The mean; 0 for no values, which a count of 0 leaves out of the curves."""
    return float(values.float().mean()) if len(values) else 0.0
