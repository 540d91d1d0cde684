"""LoRA files of every common layout compute here what they compute in stock diffusers, or are refused by name."""

import json
import re

import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, outputs, uno_weights
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from mcpipe.flux.adapters import PLAIN_FILE, AdapterSpec, ExpertParams, add_adapter, save_adapter, trainable
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.starts import import_uno, start_lora

RANK = 4
SPEC = AdapterSpec(rank=RANK, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
ALPHA = 10.0
LAYER = "transformer.transformer_blocks.0.attn.to_q"
BFL = {
    "processor.qkv_lora1": "img_attn.qkv", "processor.qkv_lora2": "txt_attn.qkv",
    "processor.proj_lora1": "img_attn.proj", "processor.proj_lora2": "txt_attn.proj", "processor.proj_lora": "linear2",
}  # fmt: skip


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


@pytest.fixture(scope="module")
def base(generator_folder):
    return outputs(load_generator(generator_folder).transformer)


def header(**config):
    """Peft's configuration as diffusers writes it into a file."""
    content = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["to_q", "to_k", "to_v", "to_out.0", "proj_out"]}
    content |= {"alpha_pattern": {}, "rank_pattern": {}} | config
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in content.items()})}


def prefixed(weights, prefix):
    return {f"{prefix}{key}": weight.clone() for key, weight in weights.items()}


def renamed(weights, *changes):
    for old, new in changes:
        weights = {key.replace(old, new): weight for key, weight in weights.items()}
    return weights


def alphas(weights, part="lora_A.weight"):
    """An alpha of every layer, not all the same."""
    layers = [key for key in weights if key.endswith(part)]
    return {key.replace(part, "alpha"): torch.tensor(ALPHA + i % 3) for i, key in enumerate(layers)}


def bfl():
    """Layers as Black Forest Labs' code names them, queries, keys and values in one."""
    weights = renamed(uno_weights(), *BFL.items(), (".down.", ".lora_A."), (".up.", ".lora_B."))
    return {key: weight for key, weight in weights.items() if "processor" not in key}


def kohya(weights):
    """As kohya's scripts name them, with an alpha for each layer."""
    weights = renamed(weights | alphas(weights), ("lora_A", "lora_down"), ("lora_B", "lora_up"))
    parts = {key: re.search(r"\.(lora_(down|up)\.weight|alpha)$", key)[0] for key in weights}
    return {f"lora_unet_{key.removesuffix(parts[key]).replace('.', '_')}{parts[key]}": w for key, w in weights.items()}


def stock(folder, file):
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
    return outputs(pipeline.transformer)


def ours(folder, file, spec=SPEC):
    pipeline = load_generator(folder)
    start_lora(pipeline, file, spec, seed=0)
    return outputs(pipeline.transformer)


def close(first, second):
    return torch.allclose(first, second, atol=2e-5, rtol=1e-4)


def test_layouts_that_stock_diffusers_reads_compute_the_same(generator_folder, base, plain, tmp_path):
    old = renamed(plain | alphas(plain), ("lora_A", "lora.down"), ("lora_B", "lora.up"))
    down = renamed(plain, ("lora_A", "lora_down"), ("lora_B", "lora_up"))
    fused = renamed(bfl() | alphas(bfl()), ("lora_A", "lora_down"), ("lora_B", "lora_up"))
    some = {key: weight for key, weight in plain.items() if "single" not in key}
    single = {key: weight[: RANK // 2] if "lora_A" in key else weight[:, : RANK // 2] for key, weight in some.items()}
    ranks = some | {key: weight for key, weight in single.items() if "to_out" in key}
    seen = {}
    for name, weights, metadata in (
        ("bare", prefixed(plain, "transformer."), None),
        ("alphas", prefixed(plain | alphas(plain), "transformer."), None),
        ("old", prefixed(old, "transformer."), None),
        ("down", prefixed(down, "transformer."), None),
        ("uno", uno_weights(), None),
        ("kohya", kohya(bfl()), None),
        ("comfy", prefixed(fused, "diffusion_model."), None),
        ("fewer layers, several ranks", prefixed(ranks, "transformer."), None),
        ("header", prefixed(plain, "transformer."), header()),
        ("rslora", prefixed(plain, "transformer."), header(use_rslora=True)),
        ("alpha_pattern", prefixed(plain, "transformer."), header(alpha_pattern={"attn.to_q": 2.0, "proj_out": 1.0})),
        (
            "rank_pattern",
            prefixed(ranks, "transformer."),
            header(rank_pattern={"to_out.0": 2}, target_modules=["to_q", "to_k", "to_v", "to_out.0", "to_add_out"]),
        ),
    ):
        file = tmp_path / f"{name}.safetensors"
        save_file({key: weight.contiguous().clone() for key, weight in weights.items()}, file, metadata)
        seen[name] = ours(generator_folder, file)
        assert close(seen[name], stock(generator_folder, file)), name
        assert (seen[name] - base).abs().max() > 1e-3, f"{name} matters"
    for name in ("alphas", "header", "rslora", "alpha_pattern"):
        assert (seen[name] - seen["bare"]).abs().max() > 1e-3, f"the scale of {name} matters"


def test_layouts_that_stock_diffusers_passes_over_compute_what_they_say(generator_folder, plain, tmp_path):
    """Prefixes of other programs, with which stock diffusers loads nothing or stops."""
    file = tmp_path / "lora.safetensors"
    scaled = plain | alphas(plain)
    save_file(prefixed(scaled, "transformer."), file)
    expected = ours(generator_folder, file)
    in_memory = renamed(scaled, (".lora_A.", ".lora_A.default."), (".lora_B.", ".lora_B.default."))
    for prefix in ("", "base_model.model.", "module.", "module.transformer.", "diffusion_model.", "_orig_mod."):
        for weights in (scaled, in_memory):
            save_file(prefixed(weights, prefix), file)
            assert close(ours(generator_folder, file), expected), prefix
    save_file(kohya(bfl()), file)
    expected = ours(generator_folder, file)
    for prefix in ("", "diffusion_model.", "base_model.model."):
        save_file(prefixed(bfl() | alphas(bfl()), prefix), file)
        assert close(ours(generator_folder, file), expected), prefix


def test_a_file_of_peft_has_the_scale_that_lies_beside_it(generator_folder, tmp_path, caplog):
    config = LoraConfig(
        r=RANK, lora_alpha=12, target_modules=["to_q", "to_add_out"], alpha_pattern={"to_add_out": 2},
        init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = get_peft_model(load_generator(generator_folder).transformer, config)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    assert close(ours(generator_folder, file), outputs(model))
    (tmp_path / "adapter_config.json").rename(tmp_path / "elsewhere.json")
    assert not close(ours(generator_folder, file), outputs(model))
    assert "adapter_config.json lies not beside" in caplog.text


def test_small_floats_are_read_as_they_are(generator_folder, plain, tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        small = {key: weight.to(dtype) for key, weight in prefixed(plain, "transformer.").items()}
        save_file(small, tmp_path / "small.safetensors", header())
        save_file({key: weight.float() for key, weight in small.items()}, tmp_path / "large.safetensors", header())
        expected = stock(generator_folder, tmp_path / "large.safetensors")
        assert close(ours(generator_folder, tmp_path / "small.safetensors"), expected), dtype


def test_a_smaller_rank_goes_on_with_directions_that_can_learn(generator_folder, plain, tmp_path):
    file = tmp_path / "small.safetensors"
    save_file(prefixed(plain, "transformer."), file)
    expected = stock(generator_folder, file)
    experts = ExpertParams(num_experts=2, top_k=1, router="st")
    for spec in (SPEC.model_copy(update={"rank": 6}), SPEC.model_copy(update={"rank": 6, "experts": experts})):
        pipeline = load_generator(generator_folder)
        start_lora(pipeline, file, spec, seed=0)
        assert close(outputs(pipeline.transformer), expected)
        down = pipeline.transformer.transformer_blocks[0].attn.to_q.lora_A["default"].weight
        assert (down[RANK:].abs().sum(1) > 0).all()


def test_other_layouts_can_be_imported(generator_folder, tmp_path):
    save_file(kohya(bfl()), tmp_path / "kohya.safetensors")
    spec = import_uno(tmp_path / "kohya.safetensors", tmp_path, IMAGE_SIZE, REFERENCE_SIZE)
    assert spec.rank == RANK
    assert close(ours(generator_folder, tmp_path / PLAIN_FILE), ours(generator_folder, tmp_path / "kohya.safetensors"))


def test_what_a_file_holds_instead_is_named(generator_folder, plain, tmp_path):
    pipelines = []

    def fresh():
        """A pipeline without an adapter; the last one, if its file was refused before it got one."""
        if not pipelines or "peft_config" in vars(pipelines[-1].transformer):
            pipelines.append(load_generator(generator_folder))
        return pipelines[-1]

    complete = prefixed(plain, "transformer.")
    matrix, kohya_layer = torch.ones(4, 64), "lora_unet_single_blocks_0_linear1"
    onetrainer = {f"lora_transformer_single_transformer_blocks_0_proj_out.lora_{way}.weight": torch.ones(4, 4)
                  for way in ("down", "up")}  # fmt: skip
    ff = {"transformer.transformer_blocks.0.ff.net.2.lora_A.weight": torch.ones(4, 256)}
    ff |= {"transformer.transformer_blocks.0.ff.net.2.lora_B.weight": torch.ones(64, 4)}
    for weights, words in (
        ({"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": matrix}, "SDXL UNet keys"),
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": matrix}, "Stable Diffusion UNet keys"),
        ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": matrix}, "Stable Diffusion UNet keys"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": matrix}, "layers of text encoders"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": matrix}, "keys of another transformer"),
        ({f"{LAYER}.lokr_w1": torch.zeros(2, 2)}, "LoKr factors"),
        ({f"{LAYER}.hada_w1_a": torch.zeros(2, 2)}, "LoHa factors"),
        ({f"{LAYER}.oft_blocks": torch.zeros(2, 2)}, "OFT rotations"),
        (complete | {f"{LAYER}.lora_magnitude_vector": torch.zeros(4)}, "DoRA magnitudes"),
        (complete | {f"{LAYER}.lora_B.bias": torch.zeros(4)}, "LoRA biases"),
        (complete | {"text_encoder.x.lora_A.weight": torch.zeros(4, 4)}, "text encoders"),
        (complete | {"double_blocks.0.img_attn.norm.query_norm.scale": torch.zeros(4)}, "a control LoRA"),
        (complete | {f"base_model.model.{LAYER}.lora_A.weight": matrix}, "more than once"),
        ({"something.else": torch.zeros(2, 2)}, r"unknown keys \(something.else\)"),
        ({"double_blocks.0.img_attn.qkv.weight": matrix}, "no LoRA matrices but keys of Black Forest Labs' code"),
        ({f"{kohya_layer}.lora_down.weight": matrix, f"{kohya_layer}.lora_up.weight": torch.ones(448, 4)},
         "kohya keys .* another width"),
        (onetrainer, "does not know a layer of transformer.single_transformer_blocks.0"),
        ({f"{LAYER}.lora_A.weight": torch.tensor(1.0)}, "should have 2 dimensions, found 0"),
        (complete | {f"{LAYER}.lora_A.weight": torch.ones(4, 64, 1, 1)}, "should have 2 dimensions, found 4"),
        (complete | {f"{LAYER}.lora_A.weight": torch.ones(4, 64, dtype=torch.int8)}, "floating-point numbers"),
        (complete | {f"{LAYER}.lora_A.weight": torch.full((4, 64), torch.nan)}, "not finite"),
        (complete | {f"{LAYER}.lora_A.weight": torch.ones(0, 64)}, "is empty"),
        (complete | {f"{LAYER}.lora_A.weight": torch.ones(3, 64)}, "rank 3, but .* rank 4"),
        (complete | {f"{LAYER}.lora_A.weight": torch.ones(4, 32)}, r"is \(4, 32\), but \(4, 64\) in this generator"),
        (complete | {f"{LAYER}.alpha": torch.ones(3)}, "should be one number"),
        ({f"{LAYER}.lora_A.weight": matrix}, "lacks its other half"),
        (complete | ff, "2 weights belong to layers that an adapter leaves alone"),
        (renamed(prefixed(plain | alphas(plain), "transformer."), ("lora_A", "lora_down"), ("lora_B", "lora_up")),
         "rename lora_down to lora_A"),
    ):  # fmt: skip
        check_refused(fresh, tmp_path, weights, None, words)
    for metadata, words in (
        ({"lora_adapter_metadata": "{"}, "header is damaged"),
        ({"lora_adapter_metadata": "[]"}, "it is no mapping"),
        (header(use_dora=True), "asks for DoRA"),
        (header(init_lora_weights="pissa_niter_4"), "changes the layers"),
        (header(lora_alpha="much"), "should be a number"),
        (header(alpha_pattern=[1]), "alpha_pattern is no mapping"),
        (header(alpha_pattern={"(": 1}), "holds no pattern"),
        (header(r=8), "says rank 8 at .* have rank 4"),
    ):
        check_refused(fresh, tmp_path, complete, metadata, words)
    check_refused(fresh, tmp_path, complete | {f"{LAYER}.alpha": torch.tensor(1.0)}, header(), "scale twice")


def check_refused(fresh, folder, weights, metadata, words):
    file = folder / "odd.safetensors"
    save_file({key: weight.contiguous() for key, weight in weights.items()}, file, metadata)
    with pytest.raises(ValueError, match=words) as error:
        start_lora(fresh(), file, SPEC, seed=0)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
