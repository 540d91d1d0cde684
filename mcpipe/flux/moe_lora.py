"""LoRA with several experts per layer, as a layer type that peft itself builds (paper, section 4.3).

    h_out = W h + sum_i p_i (alpha / r) B_i A_i h

The experts' matrices are stacked in the ordinary ``lora_A`` (experts x rank, in) and ``lora_B`` (out, experts x
rank), and the weights p_i of a token scale its rank-wide middle: every expert is computed for every token, which is
exact, has no data-dependent shapes, and costs little at the ranks of a small run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import Tensor, nn

from mcpipe.objectives.moe import Router, balance_loss, expert_shares, expert_weights

ROUTER_STD = 0.02
"""Spread of fresh router weights (ours: the paper does not say)."""


@dataclass
class MoELoraConfig(LoraConfig):
    """A LoRA that has experts in the layers whose names match, and is plain elsewhere."""

    expert_modules: str = field(default="")
    """Pattern of the names of layers with experts."""
    num_experts: int = field(default=1)
    top_k: int = field(default=1)
    router: Router = field(default="st")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._register_custom_module({nn.Linear: expert_layer})


def expert_layer(
    target: nn.Linear,
    adapter_name: str,
    config: MoELoraConfig,
    *,
    target_name: str,
    r: int,
    lora_alpha: int,
    **_: object,
) -> "MoELoraLinear | None":
    """A layer with experts if the configuration wants one here; ``None`` leaves the layer to peft."""
    if not re.fullmatch(config.expert_modules, target_name):
        return None
    return MoELoraLinear(target, adapter_name, config, r, lora_alpha)


class MoELoraLinear(Linear):
    """A frozen linear layer with a router and experts beside it."""

    adapter_layer_names = (*Linear.adapter_layer_names, "lora_router")

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, config: MoELoraConfig, r: int, lora_alpha: int
    ) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, base_layer)
        self.fan_in_fan_out = False
        self.is_target_conv_1d_layer = False
        self.num_experts = config.num_experts
        self.top_k = config.top_k
        self.router: Router = config.router
        self.lora_router = nn.ModuleDict()
        self.balance: Tensor | None = None
        """Balance loss of the latest forward pass."""
        self.shares: Tensor | None = None
        """Share of tokens whose first choice each expert was, in the latest forward pass."""
        self._active_adapter = adapter_name
        gate = nn.Linear(self.in_features, self.num_experts, bias=False)
        nn.init.normal_(gate.weight, std=ROUTER_STD)
        self.lora_router[adapter_name] = gate
        self.update_layer(adapter_name, r * self.num_experts, lora_alpha * self.num_experts, config)
        self.lora_A[adapter_name].weight.data.mul_(self.num_experts)  # peft drew N(0, 1 / rows); one expert has r rows

    def forward(self, x: Float[Tensor, "*batch in"], *args: object, **kwargs: object) -> Float[Tensor, "*batch out"]:
        """The frozen layer's output plus that of the chosen experts."""
        out = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return out
        for name in self.active_adapters:
            out = out + self._experts(name, x).to(out.dtype)
        return out

    def _experts(self, name: str, x: Tensor) -> Tensor:
        down, up = self.lora_A[name], self.lora_B[name]
        tokens = x.reshape(-1, x.shape[-1]).to(down.weight.dtype)
        logits = self.lora_router[name](tokens).float()
        self.balance, self.shares = balance_loss(logits), expert_shares(logits.detach())
        weights = expert_weights(logits, self.top_k, self.router).to(down.weight.dtype)
        middle = down(tokens).unflatten(-1, (self.num_experts, -1)) * weights[..., None]
        return (up(middle.flatten(-2)) * self.scaling[name]).reshape(*x.shape[:-1], -1)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Refuses: what the experts add depends on the input."""
        raise ValueError("experts cannot be merged into the layer they adapt: the router chooses them per token")


def expert_layers(transformer: nn.Module) -> Iterator[tuple[str, MoELoraLinear]]:
    """Every layer with experts and its name."""
    for name, module in transformer.named_modules():
        if isinstance(module, MoELoraLinear):
            yield name, module


def mean_balance(transformer: nn.Module) -> Float[Tensor, ""]:
    """Balance loss of the latest forward pass, averaged over layers; 1 when tokens spread evenly.

    Raises:
        ValueError: the transformer has no experts, or has not run.
    """
    losses = [layer.balance for _, layer in expert_layers(transformer) if layer.balance is not None]
    if not losses:
        raise ValueError("no layer with experts has run")
    return torch.stack(losses).mean()


def busiest_share(transformer: nn.Module) -> float:
    """Largest share of tokens that one expert got in the latest forward pass, averaged over layers, in (0, 1]."""
    shares = [layer.shares.max() for _, layer in expert_layers(transformer) if layer.shares is not None]
    return float(torch.stack(shares).mean())
