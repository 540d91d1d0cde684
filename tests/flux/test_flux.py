"""What we add to FLUX, against stock diffusers and against slower ways to compute the same."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, give_values

from mcpipe.flux.adapters import (
    AdapterSpec,
    ExpertParams,
    add_adapter,
    load_adapter,
    save_adapter,
    start_adapter,
    trainable,
)
from mcpipe.flux.attention import AttentionCapture
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.moe_lora import expert_layers, mean_balance
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import Requests, SampleParams, encode_conditions, generate, initial_noise
from mcpipe.flux.tokens import Layout, appended, layout, pack, unpack

PROMPTS = ["two people in a park", "a person with brown hair", "a person wearing a red shirt"]
PLAIN = AdapterSpec(rank=4, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
EXPERTS = PLAIN.model_copy(update={"experts": ExpertParams(num_experts=4, top_k=1, router="st")})


@pytest.fixture
def network(generator):
    return ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), guidance=3.5)


def call(network, generator, people, prompts=PROMPTS):
    """One forward pass for some prompts and their people, at noise level 0.7."""
    conditions = encode_conditions(generator, prompts, people)
    noise = initial_noise(network, list(range(len(prompts))))
    return network(noise, torch.full((len(prompts),), 0.7), conditions)


def test_tokens_are_packed_as_diffusers_packs_them():
    latents = torch.randn(2, 4, 8, 6)
    tokens = pack(latents)
    torch.testing.assert_close(tokens, FluxPipeline._pack_latents(latents, 2, 4, 8, 6), rtol=0, atol=0)
    torch.testing.assert_close(unpack(tokens, (4, 3)), latents, rtol=0, atol=0)


def test_references_stand_down_the_diagonal():
    """UNO's positions for 512 px pictures and 320 px references."""
    ids = Layout((32, 32), (20, 20)).reference_ids(2)
    assert ids.shape == (800, 3)
    assert ids.dtype == torch.float32
    assert ids[0].tolist() == [0, 32, 32]
    assert ids[399].tolist() == [0, 51, 51]
    assert ids[400].tolist() == [0, 52, 52]
    assert Layout((32, 32), (20, 20)).num_image_tokens + 512 + len(ids) == 2336


def test_references_can_stand_in_frames_of_their_own():
    """PSR's positions: the number of the reference, then rows and columns from 0."""
    ids = Layout((32, 32), (20, 20), "frame").reference_ids(2)
    assert ids[0].tolist() == [1, 0, 0]
    assert ids[399].tolist() == [1, 19, 19]
    assert ids[400].tolist() == [2, 0, 0]


def test_references_of_a_wrong_number_or_size_are_named(network):
    text, pooled, noisy = torch.zeros(1, 12, 24), torch.zeros(1, 16), torch.zeros(1, 16, 16)
    for shape, num_present, fault in (
        ((1, 0, 4, 16), 0, "0 references wanted, 0 of 4 tokens found"),
        ((1, 2, 4, 16), 3, "3 references wanted, 2 of 4 tokens found"),
        ((1, 2, 9, 16), 2, "2 of 9 tokens found; there should be one or more, of 4 tokens each"),
    ):
        present = torch.ones(1, num_present, dtype=torch.bool)
        conditions = Conditions(text, pooled, torch.zeros(shape), present)
        with pytest.raises(ValueError, match=fault):
            network(noisy, torch.tensor([0.5]), conditions)


def test_sizes_that_do_not_fit_the_generator_are_named(generator):
    with pytest.raises(ValueError, match="image size 30 px is no multiple of 8 px"):
        layout(generator, 30, 16)


def test_sampler_with_references_equals_the_stock_pipeline(generator, network, people):
    params = SampleParams(num_steps=4, guidance=3.5, shift=1.5)
    ours = next(generate(generator, Requests(PROMPTS[:1], people[:1], [5], params, IMAGE_SIZE, 1)))
    conditions = encode_conditions(generator, PROMPTS[:1], people[:1])
    with appended(generator.transformer, conditions.references.flatten(1, 2), network.layout.reference_ids(2), None):
        theirs = generator(
            prompt=PROMPTS[:1],
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
            num_inference_steps=4,
            guidance_scale=3.5,
            max_sequence_length=generator.tokenizer_2.model_max_length,
            latents=initial_noise(network, [5]),
            output_type="np",
        ).images[0]
    assert np.abs(ours / 255 - theirs).max() < 0.0025, "no more than rounding to 8 bits"
    without = generator(
        prompt=PROMPTS[:1], height=IMAGE_SIZE, width=IMAGE_SIZE, num_inference_steps=4, guidance_scale=3.5,
        max_sequence_length=12, latents=initial_noise(network, [5]), output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(without - theirs).max() > 0.001, "the references matter, and are gone after the context"


def test_pictures_with_different_numbers_of_people_share_a_batch(generator, network, people):
    together = call(network, generator, people)
    alone = torch.cat([call_alone(network, generator, people, i) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_an_owner_decides_which_reference_a_token_can_see(network, generator, people):
    conditions = encode_conditions(generator, PROMPTS[:1], people[:1])
    noise, t = initial_noise(network, [0]), torch.full((1,), 0.7)
    tokens = noise.shape[1]
    other = replace(conditions, references=conditions.references * torch.tensor([1.0, 0.5])[None, :, None, None])
    owners = torch.zeros(1, tokens, dtype=torch.long)
    own, changed = (network(noise, t, replace(each, owners=owners)) for each in (conditions, other))
    torch.testing.assert_close(own, changed, rtol=0, atol=1e-6)
    assert (network(noise, t, conditions) - network(noise, t, other)).abs().max() > 1e-4
    owners[:, tokens // 2 :] = 1
    assert (network(noise, t, replace(conditions, owners=owners)) - own).abs().max() > 1e-4
    owners.fill_(-1)
    both, differing = (network(noise, t, replace(each, owners=owners)) for each in (conditions, other))
    assert (both - differing).abs().max() > 1e-4


def call_alone(network, generator, people, i):
    conditions = encode_conditions(generator, PROMPTS[i : i + 1], people[i : i + 1])
    return network(initial_noise(network, [i]), torch.full((1,), 0.7), conditions)


def test_batches_can_be_cut_anywhere(generator, people):
    params = SampleParams(num_steps=2, guidance=3.5, shift=1.5)
    pictures = [
        np.stack(list(generate(generator, Requests(PROMPTS, people, [3, 4, 5], params, IMAGE_SIZE, size))))
        for size in (1, 3)
    ]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1
    with pytest.raises(ValueError, match="unequal"):
        Requests(PROMPTS, people, [3], params, IMAGE_SIZE, 1)


def test_capture_leaves_the_network_alone_and_sees_its_attention(generator, network, people, monkeypatch):
    """The maps equal those computed from the very queries and keys that the attention kernel is given."""
    from diffusers.models.transformers import transformer_flux

    plain = call(network, generator, people[:1], PROMPTS[:1])
    seen = []
    kernel = transformer_flux.dispatch_attention_fn

    def spy(query, key, value, *arguments, **keywords):
        seen.append((query.detach(), key.detach()))
        return kernel(query, key, value, *arguments, **keywords)

    monkeypatch.setattr(transformer_flux, "dispatch_attention_fn", spy)
    with AttentionCapture(network.transformer, network.layout) as capture:
        watched = call(network, generator, people[:1], PROMPTS[:1])
        maps = capture.mean()
    assert torch.equal(plain, watched)
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 2))
    num_text, num_picture, num_reference = 12, network.layout.num_image_tokens, network.layout.num_reference_tokens
    expected = []
    for query, key in seen[:2]:  # the double blocks
        start = num_text + num_picture
        queries = query[:, start:].transpose(1, 2)
        offered = key[:, num_text:start].transpose(1, 2)
        weights = (queries @ offered.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
        expected.append(weights.unflatten(2, (2, num_reference)).mean((1, 3)))
    torch.testing.assert_close(maps, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-6)


def test_capture_gives_the_same_gradients_under_checkpointing(generator, network, people):
    add_adapter(network.transformer, PLAIN, seed=0)
    give_values(network.transformer)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            network.transformer.train()
            network.transformer.enable_gradient_checkpointing()
        with AttentionCapture(network.transformer, network.layout) as capture:
            call(network, generator, people[:1], PROMPTS[:1])
            capture.mean()[..., :5].sum().backward()
        gradients.append({n: p.grad.clone() for n, p in trainable(network).items() if p.grad is not None})
        network.zero_grad(set_to_none=True)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient.abs().max() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("spec", [PLAIN, EXPERTS])
def test_a_fresh_adapter_changes_nothing(generator, network, people, spec):
    before = call(network, generator, people)
    add_adapter(network.transformer, spec, seed=3)
    assert torch.equal(call(network, generator, people), before)
    assert all(parameter.dtype == torch.float32 for parameter in trainable(network).values())


def test_one_expert_of_rank_one_adds_what_paper_and_pencil_say(network):
    add_adapter(network.transformer, EXPERTS.model_copy(update={"rank": 1}), seed=0)
    _, layer = next(expert_layers(network.transformer))
    layer.lora_A["default"].weight.data.fill_(0.0)
    layer.lora_A["default"].weight.data[2, 0] = 2.0
    layer.lora_B["default"].weight.data.fill_(0.0)
    layer.lora_B["default"].weight.data[0, 2] = 3.0
    layer.lora_router["default"].weight.data.fill_(0.0)
    layer.lora_router["default"].weight.data[2, 0] = 1.0
    x = torch.zeros(1, 2, layer.in_features)
    x[0, 0, 0], x[0, 1, 0] = 1.0, -1.0
    added = layer(x) - layer.base_layer(x)
    assert added[0, 0, 0].item() == pytest.approx(6.0, abs=1e-4), "the third expert: 3 x 2 x 1"
    assert added[0, 1].abs().max().item() == pytest.approx(0.0, abs=1e-5), "another expert, which adds nothing"


def test_router_and_every_expert_learn(generator, network, people):
    add_adapter(network.transformer, EXPERTS, seed=0)
    give_values(network.transformer)
    call(network, generator, people).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in trainable(network).items()}
    routers = [gradient for name, gradient in gradients.items() if "lora_router" in name]
    assert len(routers) == len(list(expert_layers(network.transformer)))
    assert all(gradient.abs().max() > 0 for gradient in routers[:-1])
    assert 1.0 <= float(mean_balance(network.transformer, "sample").detach()) <= 4.0


@pytest.mark.parametrize("spec", [PLAIN, EXPERTS])
def test_saved_adapters_come_back_exactly(generator_folder, generator, network, people, spec, tmp_path):
    add_adapter(network.transformer, spec, seed=0)
    give_values(network.transformer)
    save_adapter(network.transformer, spec, tmp_path)
    other = load_generator(generator_folder)
    assert load_adapter(other, tmp_path) == spec
    assert torch.equal(
        call(ReferenceFlux(other.transformer, network.layout, 3.5), other, people), call(network, generator, people)
    )


def test_plain_part_loads_in_stock_diffusers_and_experts_are_not_summed_silently(
    generator_folder, generator, network, people, tmp_path
):
    add_adapter(network.transformer, EXPERTS, seed=0)
    give_values(network.transformer)
    save_adapter(network.transformer, EXPERTS, tmp_path)
    stock = load_generator(generator_folder)
    stock.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    for _, layer in expert_layers(network.transformer):
        layer.lora_B["default"].weight.data.zero_()
    theirs = call(ReferenceFlux(stock.transformer, network.layout, 3.5), stock, people)
    torch.testing.assert_close(theirs, call(network, generator, people), rtol=1e-5, atol=1e-6)


def test_stage_two_starts_where_stage_one_ended(generator_folder, generator, network, people, tmp_path):
    add_adapter(network.transformer, PLAIN, seed=0)
    give_values(network.transformer)
    save_adapter(network.transformer, PLAIN, tmp_path)
    other = load_generator(generator_folder)
    start_adapter(other, tmp_path, EXPERTS, seed=1)
    with_experts = call(ReferenceFlux(other.transformer, network.layout, 3.5), other, people)
    torch.testing.assert_close(with_experts, call(network, generator, people), rtol=1e-5, atol=1e-6)


def test_faulty_adapters_are_named(generator, network, tmp_path):
    with pytest.raises(FileNotFoundError, match="has the stage that trains this adapter run"):
        load_adapter(generator, tmp_path)
    add_adapter(network.transformer, PLAIN, seed=0)
    save_adapter(network.transformer, PLAIN, tmp_path)
    weights = tmp_path / "pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(generator, tmp_path)


def test_faulty_generators_are_named(generator_folder, tmp_path):
    import shutil

    with pytest.raises(FileNotFoundError, match="no generator folder"):
        load_generator(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no model_index\.json"):
        load_generator(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(generator_folder, broken)
    (broken / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_generator(broken)
