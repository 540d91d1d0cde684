"""FLUX's attention as plain matrix products, for training on a CPU.

At a few hundred tokens PyTorch's fused kernel takes much of a training step on a CPU, its backward pass in bfloat16
above all; two products and a softmax take less. Results agree to rounding, checkpoints have the same layout.
"""

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn


class PlainAttention:
    """An attention processor in the sense of diffusers."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Joint attention of a double block, with text, or of a single one, without.

        ``attention_mask`` is ``True`` where a key may be attended to, (B, 1, 1, keys).
        """
        queries = attn.norm_q(_heads(attn.to_q(hidden_states), attn))
        keys = attn.norm_k(_heads(attn.to_k(hidden_states), attn))
        values = _heads(attn.to_v(hidden_states), attn)
        if encoder_hidden_states is not None:
            text = encoder_hidden_states
            queries = torch.cat([attn.norm_added_q(_heads(attn.add_q_proj(text), attn)), queries], dim=1)
            keys = torch.cat([attn.norm_added_k(_heads(attn.add_k_proj(text), attn)), keys], dim=1)
            values = torch.cat([_heads(attn.add_v_proj(text), attn), values], dim=1)
        if image_rotary_emb is not None:
            queries = apply_rotary_emb(queries, image_rotary_emb, sequence_dim=1)
            keys = apply_rotary_emb(keys, image_rotary_emb, sequence_dim=1)
        mixed = _mixed(queries.to(values.dtype), keys.to(values.dtype), values, attention_mask)
        if encoder_hidden_states is None:
            return mixed
        text_mixed, image_mixed = mixed.tensor_split([encoder_hidden_states.shape[1]], dim=1)
        return attn.to_out[1](attn.to_out[0](image_mixed)), attn.to_add_out(text_mixed)


def use_plain_attention(transformer: FluxTransformer2DModel) -> None:
    """Let every block attend that way."""
    transformer.set_attn_processor(PlainAttention())


def _heads(features: Tensor, attn: nn.Module) -> Tensor:
    return features.unflatten(-1, (-1, attn.head_dim))


def _mixed(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Softmax attention of (B, tokens, heads, width), joined to (B, tokens, heads * width)."""
    queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
