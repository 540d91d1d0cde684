"""Direct preference optimisation of a flow network (Diffusion-DPO, arXiv:2311.12908; VideoAlign, arXiv:2501.13918).

A pair of images, winner w and loser l, shares its noise e and its noise level t. With the squared error d of the
trained network less that of the frozen reference,

    d^x = |v^x - v_theta|^2 - |v^x - v_ref|^2,    L = -log sigma(-(beta / 2) (d^w - d^l)),    v = e - z_0

beta stands for beta T omega(lambda_t) of the papers, constant over t. In the noise form errors are those of e. From
e_hat = z_t + (1 - t) v_hat follows |e - e_hat|^2 = (1 - t)^2 |v - v_hat|^2: the noise form is the velocity form with
beta (1 - t)^2. A weight M of tokens multiplies the error before it is squared (FocusDPO, eq. 10), so that M^2 counts.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Form = Literal["velocity", "noise"]
Reduction = Literal["mask", "tokens"]
"""What a masked error is divided by: the sum of M^2, so that the size of a mask does not matter, or all tokens."""

Velocity = Float[Tensor, "batch tokens width"]
TokenErrors = Float[Tensor, "batch tokens"]
Weights = Float[Tensor, "batch tokens"]


@dataclass(frozen=True)
class PairErrors:
    """Errors of the trained network and of the reference on both images of every pair, one number per pair."""

    winner: Float[Tensor, " batch"]
    winner_reference: Float[Tensor, " batch"]
    loser: Float[Tensor, " batch"]
    loser_reference: Float[Tensor, " batch"]


def token_errors(velocity: Velocity, clean: Velocity, noise: Velocity) -> TokenErrors:
    """Squared error of a velocity against e - z_0, mean over the width of every token, in float32."""
    return (velocity.float() - (noise - clean).float()).square().mean(-1)


def as_noise_errors(errors: TokenErrors, t: Float[Tensor, " batch"]) -> TokenErrors:
    """Squared errors of the predicted noise from those of the velocity at noise levels ``t``: (1 - t)^2 times."""
    return errors * (1 - t)[:, None].square()


def masked_error(errors: TokenErrors, mask: Weights, reduction: Reduction) -> Float[Tensor, " batch"]:
    """Error of an image whose tokens weigh M before squaring, sum of M^2 times the error over what ``reduction`` says.

    0 for an empty mask.
    """
    squared = mask.square()
    total = (errors * squared).sum(-1)
    if reduction == "tokens":
        return total / errors.shape[-1]
    return total / squared.sum(-1).clamp(min=1e-12)


def implicit_reward(errors: PairErrors, beta: float) -> Float[Tensor, " batch"]:
    """The margin -(beta / 2) (d^w - d^l) of every pair: positive where the winner is preferred more than before."""
    gain_of_winner = errors.winner - errors.winner_reference
    gain_of_loser = errors.loser - errors.loser_reference
    return -0.5 * beta * (gain_of_winner - gain_of_loser)


def dpo_loss(margin: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """-log sigma of the margin of every pair: ln 2 while the network equals the reference."""
    return -functional.logsigmoid(margin)


def patch_dpo_loss(winner: TokenErrors, loser: TokenErrors, quality: Weights) -> Float[Tensor, " batch"]:
    """The loss of PatchDPO's released code: a weighted squared error without reference network or sigmoid.

    Tokens of the winner weigh 1 - q, those of the loser q, where ``quality`` q in [0, 1] says how well the loser
    matches the winner there; mean over tokens.
    """
    return ((1 - quality) * winner + quality * loser).mean(-1)


def scaled_rate(rate: float, accumulation: int, batch: int, processes: int) -> float:
    """The learning rate that Diffusion-DPO's launcher takes where it scales: its 1e-8 becomes 2.048e-5."""
    return rate * accumulation * batch * processes
