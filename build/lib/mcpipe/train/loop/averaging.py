"""A moving average of the weights, kept beside what an optimiser knows of them.

    average <- decay average + (1 - decay) weights,    from the weights after the first step on

It is part of the optimiser's state, and so it is sharded, stored and taken up again with it.
"""

import torch

AVERAGE = "average"


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Let an optimiser average its weights after each of its steps; ``decay`` in (0, 1)."""

    @torch.no_grad()
    def average(optimizer: torch.optim.Optimizer, _args: tuple, _kwargs: dict) -> None:
        for parameter, state in _states(optimizer):
            if AVERAGE in state:
                state[AVERAGE].lerp_(parameter, 1 - decay)
            else:
                state[AVERAGE] = parameter.detach().clone()

    optimizer.register_step_post_hook(average)


@torch.no_grad()
def take_average(optimizer: torch.optim.Optimizer) -> None:
    """Put the averages in the place of the weights."""
    for parameter, state in _states(optimizer):
        parameter.copy_(state[AVERAGE])


def _states(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Every parameter that was moved so far, and what the optimiser knows of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [(parameter, optimizer.state[parameter]) for parameter in parameters if optimizer.state[parameter]]
