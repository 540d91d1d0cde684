"""LoRA with several experts per layer, as a layer type that peft itself builds (paper, section 4.3).

    h_out = W h + sum_i p_i (alpha / r) B_i A_i h

The experts' matrices are stacked in the ordinary ``lora_A`` (experts x rank, in) and ``lora_B`` (out, experts x
rank). A token runs its ``top_k`` experts only. What is adapted is a linear layer, or a whole feed-forward network
that the experts then stand beside.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from peft import LoraConfig
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import Tensor, nn

from mcpipe.flux.backbone import FeedForward
from mcpipe.flux.dispatch import mixture
from mcpipe.flux.tokens import Positions
from mcpipe.objectives.moe import (
    BalanceOver,
    Choice,
    Router,
    balance_loss,
    choose,
    expert_chances,
    expert_shares,
)

ROUTER_STD = 0.02
"""Spread of fresh router weights (ours: the paper does not say)."""


@dataclass
class MoELoraConfig(LoraConfig):
    """A LoRA that has experts in the layers whose names match, and is plain elsewhere."""

    generator: str = field(default="")
    """Mark of the generator that the adapter belongs to."""
    positions: Positions = field(default="unope")
    """Positions that distinguish references."""
    expert_modules: str = field(default="")
    """Pattern of the names of layers with experts."""
    num_experts: int = field(default=1)
    top_k: int = field(default=1)
    router: Router = field(default="st")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._register_custom_module({nn.Linear: expert_layer, FeedForward: expert_layer})


class Routing(NamedTuple):
    """Use of a layer's experts by every sample of a forward pass."""

    shares: Float[Tensor, "samples experts"]
    """Share of a sample's tokens whose first choice each expert is."""
    chances: Float[Tensor, "samples experts"]
    """Mean over its tokens of the router's full softmax, with the graph."""


def expert_layer(
    target: nn.Linear | FeedForward,
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
    """A frozen layer with a router and experts beside it."""

    adapter_layer_names = (*Linear.adapter_layer_names, "lora_router")

    def __init__(
        self, base_layer: nn.Linear | FeedForward, adapter_name: str, config: MoELoraConfig, r: int, lora_alpha: int
    ) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, base_layer)
        self.fan_in_fan_out = False
        self.is_target_conv_1d_layer = False
        self.num_experts = config.num_experts
        self.top_k = config.top_k
        self.router: Router = config.router
        self.lora_router = nn.ModuleDict()
        self.routing: Routing | None = None
        """Use of the experts by every sample of the latest forward pass."""
        self.chosen: Tensor | None = None
        """First choice of every token in the latest forward pass."""
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
        kind = x.device.type
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else down.dtype
        tokens = x.reshape(-1, x.shape[-1])
        with torch.autocast(kind, enabled=False):
            logits = nn.functional.linear(tokens.float(), self.lora_router[name].weight.float())
            by_sample = logits.unflatten(0, (len(x), -1))
            self.routing = Routing(expert_shares(by_sample), expert_chances(by_sample))
            self.chosen = logits.detach().argmax(-1).unflatten(0, x.shape[:-1])
            choice = choose(logits, self.top_k, self.router)
            out = mixture(
                tokens.to(dtype),
                Choice(choice.experts, choice.weights * self.scaling[name]),
                down.to(dtype).unflatten(0, (self.num_experts, -1)),
                up.to(dtype).unflatten(1, (self.num_experts, -1)),
            )
        return out.unflatten(0, x.shape[:-1])

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int] | tuple[None, None]:
        if isinstance(module, FeedForward):
            first, last = module.net[0].proj, module.net[2]
            assert isinstance(first, nn.Linear), "a feed-forward network of FLUX begins and ends with linear layers"
            assert isinstance(last, nn.Linear), "a feed-forward network of FLUX begins and ends with linear layers"
            return first.in_features, last.out_features
        return super()._get_in_out_features(module)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
        last = base_layer.net[2] if isinstance(base_layer, FeedForward) else base_layer
        return super()._get_base_layer_device_and_dtype(last)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Refuses: what the experts add depends on the input."""
        raise ValueError("experts cannot be merged into the layer they adapt: the router chooses them per token")


def expert_layers(transformer: nn.Module) -> Iterator[tuple[str, MoELoraLinear]]:
    """Every layer with experts and its name."""
    for name, module in transformer.named_modules():
        if isinstance(module, MoELoraLinear):
            yield name, module


def mean_balance(
    transformer: nn.Module,
    over: BalanceOver,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda shares: shares,
) -> Float[Tensor, ""]:
    """Balance loss of the latest forward pass, averaged over layers; 1 when tokens spread evenly.

    ``batch`` counts the tokens of all samples together, so that a sample may live on one expert while others take the
    rest; ``sample`` asks of every sample to use all of them. ``mean_over_processes`` averages a tensor over processes
    that have a part of the batch each; the mean of their losses is then that of the whole batch.

    Raises:
        ValueError: the transformer has no experts, or has not run.
    """
    routings = [layer.routing for _, layer in expert_layers(transformer) if layer.routing is not None]
    if not routings:
        raise ValueError("no layer with experts has run")
    shares = torch.stack([routing.shares for routing in routings])
    chances = torch.stack([routing.chances for routing in routings])
    if over == "batch":
        shares, chances = mean_over_processes(shares.mean(1)), chances.mean(1)
    return balance_loss(shares, chances).mean()


def usage(transformer: nn.Module) -> dict[str, Float[Tensor, " experts"]]:
    """Share of tokens whose first choice each expert was in the latest forward pass, by layer; sums to 1."""
    return {
        name: _shares(layer, layer.chosen) for name, layer in expert_layers(transformer) if layer.chosen is not None
    }


def usage_by_kind(
    transformer: nn.Module, num_text: int, num_picture: int
) -> dict[str, dict[str, Float[Tensor, " experts"]]]:
    """The same by layer and kind of token that it sees: text, image, references; each sums to 1.

    ``num_text`` and ``num_picture`` are numbers of tokens. Double-stream blocks have a layer for text and one for the
    rest, single-stream blocks one for [text | image | references].
    """
    usage = {}
    for name, layer in expert_layers(transformer):
        if layer.chosen is None:
            continue
        texts = 0 if name.startswith("transformer_blocks") and "ff_context" not in name else num_text
        pictures = 0 if "ff_context" in name else num_picture
        kinds = layer.chosen.tensor_split([texts, texts + pictures], dim=1)
        named = zip(("text", "picture", "references"), kinds, strict=True)
        usage[name] = {kind: _shares(layer, chosen) for kind, chosen in named if chosen.numel()}
    return usage


def _shares(layer: MoELoraLinear, chosen: Int[Tensor, "batch tokens"]) -> Float[Tensor, " experts"]:
    return (chosen.reshape(-1, 1) == torch.arange(layer.num_experts, device=chosen.device)).float().mean(0)


def busiest_share(transformer: nn.Module) -> float:
    """Largest share of tokens that one expert got in the latest forward pass, averaged over layers, in (0, 1]."""
    return float(torch.stack([shares.max() for shares in usage(transformer).values()]).mean())
