"""FLUX that sees references: the velocity of a noisy image, given a text and any number of people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.tokens import Grid, Layout, appended, position_ids


@dataclass(frozen=True)
class Conditions:
    """What images are to show."""

    text: Float[Tensor, "batch text_tokens text_width"]
    pooled: Float[Tensor, "batch pooled_width"]
    references: Float[Tensor, "batch slots tokens packed"]
    present: Bool[Tensor, "batch slots"]
    """Mask of slots with a reference; the content of the others is never attended to."""
    owners: Int[Tensor, "batch tokens"] | None = None
    """Slot whose reference alone an image token may attend to, -1 where it may attend to all; ``None`` without such a
    rule. An oracle that is given the layout of the image (`studies.gates`); nothing else sets it."""
    grid: Grid | None = None
    """Token grid of the images; ``None`` for the network's own."""

    def __len__(self) -> int:
        return len(self.text)

    def to(self, device: torch.device | str) -> "Conditions":
        """The same on a device."""
        owners = None if self.owners is None else self.owners.to(device)
        given = (each.to(device) for each in (self.text, self.pooled, self.references, self.present))
        return Conditions(*given, owners, self.grid)

    def repeated(self, num: int) -> "Conditions":
        """The conditions of one image for ``num`` images."""
        assert len(self) == 1, f"conditions of {len(self)} pictures cannot be repeated"
        return Conditions(
            self.text.expand(num, -1, -1),
            self.pooled.expand(num, -1),
            self.references.expand(num, -1, -1, -1),
            self.present.expand(num, -1),
            None if self.owners is None else self.owners.expand(num, -1),
            self.grid,
        )

    def hidden(self) -> "Conditions":
        """The same texts, with references that no token of the image can attend to."""
        return replace(self, present=torch.zeros_like(self.present), owners=None)

    def reordered(self, order: Int[Tensor, " slots"]) -> "Conditions":
        """The same with the reference of slot ``order[i]`` in slot i."""
        return replace(self, references=self.references[:, order], present=self.present[:, order], owners=None)


def padded_references(
    references: Sequence[Float[Tensor, "_ tokens packed"]],
) -> tuple[Float[Tensor, "batch slots tokens packed"], Bool[Tensor, "batch slots"]]:
    """References of several images in one tensor, zeros where an image has fewer; and which slots are filled."""
    num_slots = max(len(tokens) for tokens in references)
    padded = [nn.functional.pad(tokens, (0, 0, 0, 0, 0, num_slots - len(tokens))) for tokens in references]
    counts = torch.tensor([len(tokens) for tokens in references], device=padded[0].device)
    return torch.stack(padded), torch.arange(num_slots, device=counts.device) < counts[:, None]


class ReferenceFlux(nn.Module):
    """A FLUX transformer whose image stream goes on with reference tokens."""

    def __init__(self, transformer: FluxTransformer2DModel, layout: Layout, guidance: float) -> None:
        super().__init__()
        self.transformer = transformer
        self.layout = layout
        self.guidance = guidance
        """Guidance scale, an input of guidance-distilled transformers only."""

    @property
    def state_shape(self) -> tuple[int, int]:
        """Tokens of an image of the network's own grid and their width."""
        return self.layout.num_image_tokens, self.transformer.x_embedder.in_features

    def shape_of(self, conditions: Conditions) -> tuple[int, int]:
        """Tokens of an image under some conditions and their width."""
        return self.layout_of(conditions).num_image_tokens, self.transformer.x_embedder.in_features

    def layout_of(self, conditions: Conditions) -> Layout:
        """Token grids under some conditions, which may name another grid of the image than the network's own."""
        return self.layout if conditions.grid is None else replace(self.layout, image=conditions.grid)

    def forward(
        self, noisy: Float[Tensor, "batch tokens packed"], t: Float[Tensor, " batch"], conditions: Conditions
    ) -> Float[Tensor, "batch tokens packed"]:
        """The velocity e - z_0 at noise levels ``t`` in [0, 1], in float32.

        Raises:
            ValueError: there is no reference, or references have another number of tokens than the layout's.
        """
        return self.guided(noisy, t, torch.full_like(t, self.guidance), conditions)

    def guided(
        self,
        noisy: Float[Tensor, "batch tokens packed"],
        t: Float[Tensor, " batch"],
        guidance: Float[Tensor, " batch"],
        conditions: Conditions,
    ) -> Float[Tensor, "batch tokens packed"]:
        """The same with a guidance scale of its own for every image, as teaching guidance needs it.

        Raises:
            ValueError: as a call.
        """
        dtype = self.transformer.x_embedder.weight.dtype
        slots, num_tokens = conditions.references.shape[1:3]
        if slots == 0 or conditions.present.shape[1] != slots or num_tokens != self.layout.num_reference_tokens:
            raise ValueError(
                f"{conditions.present.shape[1]} references wanted, {slots} of {num_tokens} tokens found; there should "
                f"be one or more, of {self.layout.num_reference_tokens} tokens each"
            )
        layout, visible = self.layout_of(conditions), None
        if conditions.owners is not None:
            visible = self._owned(conditions, conditions.owners)
        elif not bool(conditions.present.all()):
            visible = conditions.present.repeat_interleave(self.layout.num_reference_tokens, dim=1)[:, None]
        ids = layout.reference_ids(slots)
        with appended(self.transformer, conditions.references.flatten(1, 2), ids, visible):
            return self.transformer(
                hidden_states=noisy.to(dtype),
                timestep=t,
                guidance=guidance if self.transformer.config.guidance_embeds else None,
                encoder_hidden_states=conditions.text.to(dtype),
                pooled_projections=conditions.pooled.to(dtype),
                img_ids=position_ids(layout.image).to(noisy.device),
                txt_ids=torch.zeros(conditions.text.shape[1], 3, device=noisy.device),
                return_dict=False,
            )[0].float()

    def _owned(
        self, conditions: Conditions, owners: Int[Tensor, "batch tokens"]
    ) -> Bool[Tensor, "batch queries reference_tokens"]:
        """Which reference tokens text, image and reference tokens may attend to, given the owners of image tokens.

        Text attends to no reference and a reference to no other, so that nothing passes around the rule.
        """
        num, (batch, slots) = self.layout.num_reference_tokens, conditions.present.shape
        slot = torch.arange(slots, device=owners.device)
        image = (owners[..., None] < 0) | (owners[..., None] == slot)
        text = image.new_zeros(batch, conditions.text.shape[1], slots)
        own = torch.eye(slots, dtype=torch.bool, device=owners.device).repeat_interleave(num, 0).expand(batch, -1, -1)
        allowed = torch.cat([text, image, own], 1) & conditions.present[:, None]
        return allowed.repeat_interleave(num, dim=2)
