"""Exponential moving average of the weights, kept in the optimiser's state.

    average <- decay average + (1 - decay) weights,    from the weights after the first step on

As part of the optimiser's state it is sharded, checkpointed and restored with it.
"""

import torch

AVERAGE = "average"
"""Key of the average in the optimiser's state of a parameter."""


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Make an optimiser average its weights after each of its steps; ``decay`` in (0, 1)."""

    @torch.no_grad()
    def update(optimizer: torch.optim.Optimizer, _args: tuple, _kwargs: dict) -> None:
        for parameter, state in _states(optimizer):
            if AVERAGE in state:
                state[AVERAGE].lerp_(parameter, 1 - decay)
            else:
                state[AVERAGE] = parameter.detach().clone()

    optimizer.register_step_post_hook(update)


@torch.no_grad()
def take_average(optimizer: torch.optim.Optimizer) -> None:
    """Replace the weights by their averages."""
    for parameter, state in _states(optimizer):
        parameter.copy_(state[AVERAGE])


def _states(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Every parameter that has been updated, with the optimiser's state of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [(parameter, optimizer.state[parameter]) for parameter in parameters if optimizer.state[parameter]]
