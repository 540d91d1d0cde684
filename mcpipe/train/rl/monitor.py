"""Monitoring of reinforcement learning: router usage and collapse."""

from collections.abc import Sequence

from mcpipe.flux.moe_lora import busiest_share, expert_layers
from mcpipe.flux.network import ReferenceFlux
from mcpipe.train.rl.params import WatchParams

Summary = dict[str, float]
"""Metrics of one iteration."""


def router_usage(network: ReferenceFlux) -> Summary:
    """Largest share of tokens that an expert got in the latest pass; empty without experts."""
    if not any(True for _ in expert_layers(network.transformer)):
        return {}
    return {"router_busiest": busiest_share(network.transformer)}


def collapse(history: Sequence[Summary], params: WatchParams) -> str | None:
    """Reason to stop a training, or ``None``.

    The held-out recogniser scores the same images as the rewards, so that prompts cannot explain a disagreement.
    """
    if not history:
        return None
    drift = history[-1].get("ratio_deviation", 0.0)
    if drift > params.max_ratio_drift:
        return f"ratio_drift: a ratio went {drift:.3g} away from 1, more than {params.max_ratio_drift:g}"
    num = params.num_compared
    if len(history) < 2 * num:
        return None
    risen = _mean(history[-num:], "reward_identity") - _mean(history[:num], "reward_identity")
    fallen = _mean(history[:num], "heldout") - _mean(history[-num:], "heldout")
    if min(risen, fallen) > params.max_disagreement:
        return (
            f"reward_hack: the identity reward rose by {risen:.3g} while the held-out recogniser's score fell by "
            f"{fallen:.3g}, both more than {params.max_disagreement:g}"
        )
    return None


def _mean(some: Sequence[Summary], name: str) -> float:
    return sum(summary[name] for summary in some) / len(some)
