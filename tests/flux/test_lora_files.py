"""LoRA files of every common layout compute here what they compute in stock diffusers, or are refused by name."""

import json

import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, outputs
from safetensors.torch import load_file, save_file

from mcpipe.flux.adapters import PLAIN_FILE, AdapterSpec, add_adapter, save_adapter, start_lora, trainable
from mcpipe.flux.backbone import FluxPipeline, load_generator

RANK = 4
SPEC = AdapterSpec(rank=RANK, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
ALPHA = 10.0
KOHYA = {"to_out.0": "proj", "to_add_out": "proj"}


@pytest.fixture(scope="module")
def plain(generator_folder, tmp_path_factory):
    """A LoRA that changes something, by diffusers' names."""
    folder = tmp_path_factory.mktemp("plain")
    pipeline = load_generator(generator_folder)
    add_adapter(pipeline.transformer, SPEC, seed=0)
    torch.manual_seed(0)
    for parameter in trainable(pipeline.transformer).values():
        parameter.data = torch.randn_like(parameter) * 0.1
    save_adapter(pipeline.transformer, SPEC, folder)
    return {key.removeprefix("transformer."): weight for key, weight in load_file(folder / PLAIN_FILE).items()}


def header(**config):
    """Peft's configuration as diffusers writes it into a file."""
    content = {
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["to_q"],
        "alpha_pattern": {},
        "rank_pattern": {},
    } | config
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in content.items()})}


def kohya(plain):
    """The double blocks' output projections as kohya's scripts name them, with an alpha for each."""
    weights = {}
    for block in (0, 1):
        for layer, name in (("attn.to_out.0", "img_attn_proj"), ("attn.to_add_out", "txt_attn_proj")):
            place = f"lora_unet_double_blocks_{block}_{name}"
            weights[f"{place}.lora_down.weight"] = plain[f"transformer_blocks.{block}.{layer}.lora_A.weight"]
            weights[f"{place}.lora_up.weight"] = plain[f"transformer_blocks.{block}.{layer}.lora_B.weight"]
            weights[f"{place}.alpha"] = torch.tensor(ALPHA)
    return weights


def prefixed(plain, prefix):
    return {f"{prefix}{key}": weight.clone() for key, weight in plain.items()}


def stock(folder, file):
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
    return outputs(pipeline.transformer)


def ours(folder, file):
    pipeline = load_generator(folder)
    start_lora(pipeline, file, SPEC, seed=0)
    return outputs(pipeline.transformer)


def test_scales_in_a_files_header_hold_as_in_stock_diffusers(generator_folder, plain, tmp_path):
    changes = []
    for number, config in enumerate(({}, {"use_rslora": True}, {"alpha_pattern": {"attn.to_q": 2.0, "proj_out": 1.0}})):
        file = tmp_path / f"{number}.safetensors"
        save_file(prefixed(plain, "transformer."), file, header(**config))
        torch.testing.assert_close(ours(generator_folder, file), stock(generator_folder, file), atol=2e-5, rtol=1e-4)
        changes.append(ours(generator_folder, file))
    save_file(prefixed(plain, "transformer."), tmp_path / "bare.safetensors")
    bare = ours(generator_folder, tmp_path / "bare.safetensors")
    torch.testing.assert_close(bare, stock(generator_folder, tmp_path / "bare.safetensors"), atol=2e-5, rtol=1e-4)
    assert all((change - bare).abs().max() > 1e-3 for change in changes), "the scale matters"


def test_alphas_old_names_wrappers_and_small_floats(generator_folder, plain, tmp_path):
    reference = tmp_path / "reference.safetensors"
    save_file(prefixed(plain, "transformer."), reference, header())
    wanted = ours(generator_folder, reference)
    alphas = {key.replace("lora_A.weight", "alpha"): torch.tensor(ALPHA) for key in plain if ".lora_A." in key}
    old = {key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): weight for key, weight in plain.items()}
    for name, weights in {
        "alphas": prefixed(plain | alphas, "transformer."),
        "old": prefixed(old | alphas, "transformer."),
        "peft": prefixed(plain | alphas, "base_model.model."),
        "wrapped": prefixed(plain | alphas, "module.transformer."),
    }.items():
        save_file(weights, tmp_path / f"{name}.safetensors")
        torch.testing.assert_close(
            ours(generator_folder, tmp_path / f"{name}.safetensors"), wanted, atol=1e-5, rtol=1e-4
        )
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        small = {key: weight.to(dtype) for key, weight in prefixed(plain, "transformer.").items()}
        save_file(small, tmp_path / "small.safetensors", header())
        save_file({key: weight.float() for key, weight in small.items()}, tmp_path / "large.safetensors", header())
        expected = ours(generator_folder, tmp_path / "large.safetensors")
        torch.testing.assert_close(ours(generator_folder, tmp_path / "small.safetensors"), expected)


def test_what_a_file_holds_instead_is_named(generator_folder, plain, tmp_path):
    file = tmp_path / "odd.safetensors"
    layer = "transformer.transformer_blocks.0.attn.to_q"
    for weights, words in (
        (kohya(plain), r"does not fit: .*kohya keys \(lora_unet"),
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 4)}, "Stable Diffusion UNet"),
        ({f"{layer}.lokr_w1": torch.zeros(2, 2)}, "LoKr factors"),
        ({f"{layer}.hada_w1_a": torch.zeros(2, 2)}, "LoHa factors"),
        (prefixed(plain, "transformer.") | {f"{layer}.lora_magnitude_vector": torch.zeros(4)}, "DoRA magnitudes"),
        (prefixed(plain, "transformer.") | {"text_encoder.x.lora_A.weight": torch.zeros(4, 4)}, "text encoders"),
        ({f"{layer}.lora_A.weight": torch.tensor(1.0)}, "should have 2 dimensions, found 0"),
        ({"something.else": torch.zeros(2, 2)}, "unknown keys"),
        ({f"{layer}.lora_A.weight": torch.zeros(4, 64)}, "lacks its other half"),
    ):
        save_file(weights, file)
        with pytest.raises(ValueError, match=words) as error:
            start_lora(load_generator(generator_folder), file, SPEC, seed=0)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
    save_file(prefixed(plain, "transformer."), file, {"lora_adapter_metadata": "{"})
    with pytest.raises(ValueError, match="header is damaged"):
        start_lora(load_generator(generator_folder), file, SPEC, seed=0)
