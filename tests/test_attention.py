"""Attention maps beside a network that is checkpointed or compiled."""

import jaxtyping
import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, trainable
from mcpipe.flux.attention import AttentionCapture, attention_maps
from mcpipe.flux.moe_lora import mean_balance, usage
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.batches import EncodedSet, Sample
from mcpipe.train.multi import held_out_scores

SPEC = AdapterSpec(
    rank=4,
    experts=ExpertParams(num_experts=4, top_k=1, router="st"),
    image_size=IMAGE_SIZE,
    reference_size=REFERENCE_SIZE,
)


@pytest.fixture
def network(generator):
    add_adapter(generator.transformer, SPEC, seed=0)
    random = torch.Generator().manual_seed(0)
    for parameter in trainable(generator.transformer).values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), guidance=3.5)


def inputs():
    random = torch.Generator().manual_seed(1)
    shapes = {"noisy": (2, 16, 16), "text": (2, 12, 24), "pooled": (2, 16), "references": (2, 2, 4, 16)}
    noisy, text, pooled, references = (torch.randn(shape, generator=random) for shape in shapes.values())
    present = torch.ones(2, 2, dtype=torch.bool)
    return noisy, torch.tensor([0.3, 0.8]), Conditions(text, pooled, references, present)


def step(network, capture):
    """Velocity, maps, shares of experts and gradients of one training step."""
    out = network(*inputs())
    maps = capture.mean()
    (out.square().mean() + maps[..., :5].sum() + mean_balance(network)).backward()
    gradients = {name: weight.grad.clone() for name, weight in trainable(network).items()}
    network.zero_grad(set_to_none=True)
    return out.detach(), maps.detach(), usage(network.transformer), gradients


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_train_alike(network, checkpointing, monkeypatch):
    """With maps, experts and their gradients in one graph per block; maps can also be taken afterwards."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks cannot be compiled
    with AttentionCapture(network.transformer, network.layout) as capture:
        expected = step(network, capture)
    maps = attention_maps(network, *inputs())
    if checkpointing:
        network.transformer.train()
        network.transformer.enable_gradient_checkpointing()
    with AttentionCapture(network.transformer, network.layout) as capture:
        network.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
        for _ in range(2):
            found = step(network, capture)
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention_maps(network, *inputs()), maps)
    torch.compiler.reset()


def encoded(masks, num_references=2):
    """One sample, for training and held out."""
    random = torch.Generator().manual_seed(2)
    text = torch.randn(12, 24, generator=random), torch.randn(16, generator=random)
    references = torch.randn(num_references, 4, 16, generator=random)
    sample = Sample("clip_1", torch.randn(16, 16, generator=random), references, masks, "two people", text)
    return EncodedSet([sample], [sample], text, IMAGE_SIZE, REFERENCE_SIZE)


def test_held_out_scores_tell_attention_per_noise_level_and_tokens_per_expert(network):
    everywhere = torch.ones(2, 16, dtype=torch.bool)
    found = held_out_scores(network, encoded(everywhere), seed=0)
    assert list(found["attention"]) == ["0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00"]
    for scores in found["attention"].values():
        assert scores == pytest.approx({"attention_inside": 1.0, "attention_peak_inside": 1.0})
    assert len(found["expert_shares"]) == 6, "four layers in double blocks, two in single ones"
    assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in found["expert_shares"].values())
    left = everywhere & (torch.arange(16) % 4 < 2)
    first, again = (held_out_scores(network, encoded(left), seed=0) for _ in range(2))
    assert first == again
    inside = [scores["attention_inside"] for scores in first["attention"].values()]
    assert 0 < min(inside) < max(inside) < 1
    right = held_out_scores(network, encoded(everywhere & ~left), seed=0)["attention"].values()
    assert [1 - scores["attention_inside"] for scores in right] == pytest.approx(inside, abs=1e-5)
