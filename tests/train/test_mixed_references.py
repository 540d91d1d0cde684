"""One to four references in one batch: a slot without a reference changes neither the prediction nor the losses."""

from dataclasses import replace

import pytest
import torch
from training_fixtures import MULTI

from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.attention import AttentionCapture
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop.data import TrainingSample, collate
from mcpipe.train.multi import multi_losses
from mcpipe.train.supervised import predicted

NUMBERS = (2, 4, 1, 3)
PLAIN = MULTI.model_copy(update={"experts": None})
"""Without experts, whose balance counts every token that passes."""


@pytest.fixture(params=["frame", "unope"])
def network(generator, request):
    spec = AdapterSpec(rank=4, experts=None, image_size=32, reference_size=16, positions=request.param)
    add_adapter(generator.transformer, spec, seed=0)
    random = torch.Generator().manual_seed(0)
    for parameter in generator.transformer.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)
    grids = layout(generator, 32, 16)
    assert grids.positions == request.param
    return ReferenceFlux(generator.transformer, grids, 1.0)


def drawn(network):
    """A sample for each of `NUMBERS` with its noise and noise level; people have stripes of the image for faces."""
    random, config = torch.Generator().manual_seed(1), network.transformer.config
    tokens, width = network.state_shape
    draws = []
    for place, number in enumerate(NUMBERS):
        clean, noise = torch.randn(2, tokens, width, generator=random)
        references = torch.randn(number, network.layout.num_reference_tokens, width, generator=random)
        masks = torch.arange(tokens)[None] % 4 == torch.arange(number)[:, None]
        text = torch.randn(12, config.joint_attention_dim, generator=random)
        pooled = torch.randn(config.pooled_projection_dim, generator=random)
        sample = TrainingSample(str(place), clean, references, masks, "", (text, pooled))
        draws.append((sample, noise, torch.tensor(0.2 + 0.2 * place)))
    return draws


def losses_of(network, batch):
    with AttentionCapture(network.transformer, network.layout) as capture:
        return multi_losses(network, batch, PLAIN, capture, 0).terms


def test_a_mixed_batch_predicts_and_loses_what_its_samples_do_alone(network):
    draws, cpu = drawn(network), torch.device("cpu")
    batch = collate(draws, cpu)
    assert batch.conditions.present.sum(1).tolist() == [*NUMBERS]
    assert batch.masks.any(-1).sum(1).tolist() == [*NUMBERS], "no mask in an empty slot"
    alone = [collate([draw], cpu) for draw in draws]
    assert [len(each.conditions.present[0]) for each in alone] == [*NUMBERS], "nothing is padded"
    with torch.no_grad():
        together = predicted(network, batch)
        apart = torch.cat([predicted(network, each) for each in alone])
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=2e-5)
    mixed, single = losses_of(network, batch), [losses_of(network, each) for each in alone]
    for name, loss in mixed.items():
        torch.testing.assert_close(loss, torch.stack([terms[name] for terms in single]).mean(), atol=1e-5, rtol=1e-5)


def test_the_content_of_an_empty_slot_reaches_neither_losses_nor_gradients(network):
    batch = collate(drawn(network), torch.device("cpu"))
    empty = ~batch.conditions.present[..., None, None]
    noise = 3 * torch.randn(batch.conditions.references.shape, generator=torch.Generator().manual_seed(2))
    filled = torch.where(empty, noise, batch.conditions.references)
    other = replace(batch, conditions=replace(batch.conditions, references=filled))
    outcomes = []
    for each in (batch, other):
        network.zero_grad(set_to_none=True)
        loss = sum(losses_of(network, each).values())
        loss.backward()
        grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        outcomes.append((loss.detach(), torch.cat(grads)))
    torch.testing.assert_close(outcomes[0], outcomes[1], atol=1e-6, rtol=1e-5)
    assert bool(outcomes[0][1].any())
