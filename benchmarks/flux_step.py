"""A training step of FLUX of a chosen size, and figures with limits, for the benchmarks of training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, trainable
from mcpipe.flux.attention import AttentionCapture
from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.tokens import Layout, appended, position_ids

MIB = 2**20
FULL = {"heads": 24, "rank": 512, "text": 512, "layout": Layout((32, 32), (20, 20))}
"""FLUX.1-dev as the paper trains it."""
PROPORTIONED = {"heads": 4, "rank": 84, "text": 85, "layout": Layout((13, 13), (8, 8))}
"""A sixth of its width with a sixth of its tokens: parts of a step cost about the share that they cost at full size."""
Row = tuple[str, float, float | None, bool | None]
"""A figure, its demanded limit if there is one, and whether it is met."""


def at_most(name: str, value: float, limit: float) -> Row:
    """A figure with an upper limit."""
    return name, value, limit, value <= limit


def at_least(name: str, value: float, limit: float) -> Row:
    """A figure with a lower limit."""
    return name, value, limit, value >= limit


class Step:
    """One training step of FLUX with an adapter, by default plain LoRA, and two references; without its optimiser."""

    def __init__(
        self, blocks: Sequence[int], size: dict, device: str, dtype: torch.dtype, experts: ExpertParams | None = None
    ) -> None:
        self.layout, heads = size["layout"], size["heads"]
        with torch.device(device):
            self.flux = FluxTransformer2DModel(
                num_layers=blocks[0],
                num_single_layers=blocks[1],
                num_attention_heads=heads,
                joint_attention_dim=128 * heads,
                guidance_embeds=True,
            )
            self.flux.to(dtype).requires_grad_(False)
            spec = AdapterSpec(rank=size["rank"], experts=experts, image_size=512, reference_size=320)
            add_adapter(self.flux, spec, seed=0)
            for weight in trainable(self.flux).values():
                weight.data = weight.data.to(dtype)
            picture = self.layout.num_image_tokens
            self.noisy, self.pooled = torch.randn(1, picture, 64, dtype=dtype), torch.randn(1, 768, dtype=dtype)
            self.text = torch.randn(1, size["text"], 128 * heads, dtype=dtype)
            self.references = torch.randn(1, 2 * self.layout.num_reference_tokens, 64, dtype=dtype)
            self.t = torch.full((1,), 0.5)

    def __call__(self, regularised: bool) -> None:
        """Forward and backward; the gradients stay."""
        if regularised:
            with AttentionCapture(self.flux, self.layout) as capture:
                self.captured(capture)
        else:
            self._velocity().square().mean().backward()

    def captured(self, capture: AttentionCapture) -> Tensor:
        """A regularised step within a capture that is open; returns its loss."""
        loss = self._velocity().square().mean() + capture.mean()[..., :40].sum()
        loss.backward()
        return loss.detach()

    def _velocity(self) -> Tensor:
        device = self.noisy.device
        with appended(self.flux, self.references, self.layout.reference_ids(2), None):
            return self.flux(
                hidden_states=self.noisy,
                timestep=self.t,
                guidance=self.t,
                encoder_hidden_states=self.text,
                pooled_projections=self.pooled,
                img_ids=position_ids(self.layout.image).to(device),
                txt_ids=torch.zeros(self.text.shape[1], 3, device=device),
                return_dict=False,
            )[0].float()
