"""A LoRA on a frozen adapter, features of the double blocks, and the inpainter's format."""

import json

import numpy as np
import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, TEXTS, outputs

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, load_adapter, trainable
from mcpipe.flux.added_lora import ADDED, add_lora, combined_spec, reference_policy, save_combined
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.features import recorded_matches
from mcpipe.flux.inpainting import FluxFill, InpaintParams, fill_channels
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import encode_conditions, initial_noise
from mcpipe.flux.tokens import layout

EXPERTS = ExpertParams(num_experts=3, top_k=1, router="st")


def disturbed(transformer):
    """Give every adapter's second matrix values, which start at zero."""
    random = torch.Generator().manual_seed(3)
    for name, parameter in transformer.named_parameters():
        if ".lora_B." in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.1)


def with_start(generator, experts):
    spec = AdapterSpec(rank=4, experts=experts, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
    add_adapter(generator.transformer, spec, 0)
    disturbed(generator.transformer)
    return spec


@pytest.mark.parametrize("experts", [None, EXPERTS])
def test_the_policy_is_one_adapter_and_the_reference_is_its_start(generator, generator_folder, tmp_path, experts):
    spec = with_start(generator, experts)
    start = outputs(generator.transformer)
    add_lora(generator.transformer, 2, 0)
    assert trainable(generator.transformer)
    assert all(f".{ADDED}." in name for name in trainable(generator.transformer))
    assert torch.equal(outputs(generator.transformer), start)
    for name, parameter in trainable(generator.transformer).items():
        if ".lora_B." in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    policy = outputs(generator.transformer)
    assert (policy - start).abs().max() > 0.01
    with reference_policy(generator.transformer):
        assert torch.equal(outputs(generator.transformer), start)
    assert torch.equal(outputs(generator.transformer), policy)
    save_combined(generator.transformer, combined_spec(spec, 2), tmp_path)
    loaded = load_generator(generator_folder)
    assert load_adapter(loaded, tmp_path).rank == 6
    torch.testing.assert_close(outputs(loaded.transformer), policy, atol=1e-4, rtol=1e-4)


def test_the_reference_is_frozen_also_where_the_policy_learns(generator):
    with_start(generator, EXPERTS)
    add_lora(generator.transformer, 2, 0)
    with reference_policy(generator.transformer):
        assert not outputs(generator.transformer).requires_grad
    hidden = torch.randn(1, 16, 16)
    out = generator.transformer(
        hidden_states=hidden, encoder_hidden_states=torch.randn(1, 12, 24), pooled_projections=torch.randn(1, 16),
        timestep=torch.tensor([0.5]), guidance=torch.tensor([1.0]), img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(12, 3), return_dict=False,
    )[0]  # fmt: skip
    out.sum().backward()
    touched = {name for name, parameter in generator.transformer.named_parameters() if parameter.grad is not None}
    assert touched
    assert touched <= set(trainable(generator.transformer))


def test_scores_are_cosines_of_blocks_and_follow_the_references(generator, people):
    network = ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), 1.0)
    conditions = encode_conditions(generator, [TEXTS[0]], [people[0]])
    noise, t = initial_noise(network, [0]), torch.tensor([0.5])
    with torch.no_grad(), recorded_matches(network, "cosine") as scores:
        network(noise, t, conditions)
        first = scores.mean()
        network(noise, t, conditions)
        assert torch.equal(scores.mean(), first)
    assert first.shape == (1, 2, network.layout.num_image_tokens)
    assert first.abs().max() <= 1
    assert not torch.allclose(first[:, 0], first[:, 1])
    assert not network.transformer.transformer_blocks[0]._forward_hooks


@pytest.fixture
def inpainter_folder(tmp_path, generator):
    from diffusers import FluxTransformer2DModel

    config = dict(generator.transformer.config) | {"in_channels": fill_channels(4, 4), "out_channels": 16}
    folder = tmp_path / "inpainter"
    torch.manual_seed(0)
    FluxTransformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    return folder


FILL = InpaintParams(num_steps=2, guidance=3.0)


def test_only_the_masked_part_is_repainted_and_a_seed_repeats(inpainter_folder, generator_folder):
    fill = FluxFill(inpainter_folder, generator_folder, FILL)
    picture = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[8:20, 4:24] = True
    first, again = (fill.repainted(picture, mask, TEXTS[0], seed=5) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(first[~mask], picture[~mask])
    assert (first[mask] != picture[mask]).mean() > 0.5
    assert not np.array_equal(fill.repainted(picture, mask, TEXTS[0], seed=6), first)


def test_a_whole_pipeline_is_loaded_as_diffusers_saves_it(inpainter_folder, generator_folder, tmp_path):
    from mcpipe.flux.inpainting import load_inpainter

    pipeline = load_inpainter(inpainter_folder, generator_folder)
    pipeline.save_pretrained(tmp_path / "saved")
    saved = load_inpainter(tmp_path / "saved", tmp_path / "nowhere")
    assert (
        json.loads((tmp_path / "saved" / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
        == "FluxFillPipeline"
    )
    for own, other in zip(saved.transformer.parameters(), pipeline.transformer.parameters(), strict=True):
        assert torch.equal(own, other)


def test_a_lora_makes_an_inpainter_of_the_generator(generator_folder, tmp_path):
    from diffusers import FluxFillPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    from mcpipe.flux.adapters import PLAIN_FILE
    from mcpipe.flux.backbone import load_generator
    from mcpipe.flux.inpainting import load_inpainter

    transformer = load_generator(generator_folder, on_device=False).transformer
    transformer.x_embedder = torch.nn.Linear(fill_channels(4, 4), transformer.inner_dim)
    transformer.add_adapter(LoraConfig(r=4, init_lora_weights="gaussian", target_modules=["x_embedder"]))
    torch.nn.init.normal_(transformer.x_embedder.lora_B["default"].weight)
    layers = get_peft_model_state_dict(transformer)
    FluxFillPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers)
    assert [file.name for file in tmp_path.iterdir()] == [PLAIN_FILE]
    pipeline = load_inpainter(tmp_path, generator_folder)
    plain = load_generator(generator_folder, on_device=False).transformer
    wide, change = (
        pipeline.transformer.x_embedder.weight,
        layers["x_embedder.lora_B.weight"] @ layers["x_embedder.lora_A.weight"],
    )
    assert pipeline.transformer.config.in_channels == fill_channels(4, 4)
    torch.testing.assert_close(wide[:, 16:], change[:, 16:])
    torch.testing.assert_close(wide[:, :16], change[:, :16] + plain.x_embedder.weight)
    (tmp_path / PLAIN_FILE).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_inpainter(tmp_path, generator_folder)


def test_what_is_no_inpainter_is_refused(generator_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither a FluxFillPipeline"):
        FluxFill(tmp_path, generator_folder, FILL)
    with pytest.raises(ValueError, match="holds a FluxPipeline, not a FluxFillPipeline"):
        FluxFill(generator_folder, generator_folder, FILL)
    (tmp_path / "transformer").symlink_to(generator_folder / "transformer")
    with pytest.raises(ValueError, match="takes 16 channels, but with this VAE it needs 96"):
        FluxFill(tmp_path, generator_folder, FILL)
