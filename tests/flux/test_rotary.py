"""Positions are turned into queries and keys to the bit as diffusers does it, and the transformer does so, too."""

from typing import Any

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE

from mcpipe.flux import backbone
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import layout


def turned_by_diffusers(vectors, rotary: Any) -> Any:  # announced are other types than those of FLUX
    return apply_rotary_emb(vectors, rotary, sequence_dim=1)


def angles(tokens, width):
    turn = torch.randn(tokens, width // 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9
    return turn.cos().float().repeat_interleave(2, 1), turn.sin().float().repeat_interleave(2, 1)


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("slices", [slice(None), slice(3, 11), slice(2, 12, 3)], ids=["all", "some", "every third"])
def test_turns_are_those_of_diffusers_to_the_bit(width, slices):
    random = torch.Generator().manual_seed(0)
    vectors, grad = (torch.randn(2, 17, 4, width, generator=random) for _ in range(2))
    cos, sin = angles(17, width)
    rotary = cos[slices], sin[slices]
    given = [vectors.clone().requires_grad_() for _ in range(2)]
    ours = backbone.rotated(given[0][:, slices], rotary)
    theirs = turned_by_diffusers(given[1][:, slices], rotary)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, vectors[:, slices])
    grads = [
        torch.autograd.grad(turned, own, grad[:, slices]) for turned, own in zip((ours, theirs), given, strict=True)
    ]
    assert torch.equal(*grads[0], *grads[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_places_are_left_to_diffusers(dtype):
    vectors, rotary = torch.randn(1, 5, 2, 32), angles(5, 32)
    assert torch.equal(backbone.rotated(vectors.to(dtype), rotary), turned_by_diffusers(vectors.to(dtype), rotary))
    odd = torch.randn(1 + vectors.numel())[1:].view_as(vectors)
    assert torch.equal(backbone.rotated(odd, rotary), turned_by_diffusers(odd, rotary))


def test_the_transformer_turns_so_and_computes_what_it_did(generator, monkeypatch):
    network = ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), guidance=3.5)
    random = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=random)

    tokens, width = network.state_shape
    config = generator.transformer.config
    conditions = Conditions(
        drawn(2, 8, config.joint_attention_dim),
        drawn(2, config.pooled_projection_dim),
        drawn(2, 2, network.layout.num_reference_tokens, width),
        torch.ones(2, 2, dtype=torch.bool),
    )
    noisy, t = drawn(2, tokens, width), torch.tensor([0.3, 0.7])
    with torch.no_grad():
        ours = network(noisy, t, conditions)
        calls = []
        monkeypatch.setattr(
            backbone.transformer_flux,
            "apply_rotary_emb",
            lambda *args, **given: calls.append(1) or apply_rotary_emb(*args, **given),
        )
        theirs = network(noisy, t, conditions)
    assert len(calls) == 2 * (config.num_layers + config.num_single_layers)
    assert torch.equal(ours, theirs)
