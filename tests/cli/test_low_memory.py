"""Images drawn with less memory: what is rounded, what is moved, and that nothing else changes."""

import sys
from importlib.util import find_spec

import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, TEXTS, write_changing_adapter
from PIL import Image
from training_fixtures import NEEDS_BITSANDBYTES
from transformers import T5Config, T5EncoderModel

from mcpipe.cli.__main__ import main
from mcpipe.flux.adapters import AdapterSpec, ExpertParams
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.budget import base_bytes, sizes
from mcpipe.flux.quantization import KEPT_T5, num_quantized, quantizable, quantize
from mcpipe.pipelines import MultiCrafterPipeline

PROMPT = TEXTS[0]
SPEC = AdapterSpec(
    rank=4,
    experts=ExpertParams(num_experts=4, top_k=1, router="st", placement="ffn_out"),
    image_size=IMAGE_SIZE,
    reference_size=REFERENCE_SIZE,
    shift=2.5,
)


@pytest.fixture(scope="module")
def adapter_folder(generator_folder, tmp_path_factory):
    """An adapter that changes what the generator computes."""
    return write_changing_adapter(load_generator(generator_folder), SPEC, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def load(generator_folder, adapter_folder):
    def pipeline(**options):
        return MultiCrafterPipeline.from_pretrained(generator_folder, adapter=adapter_folder, **options)

    return pipeline


def drawn(pipeline, people, **options):
    """Output of one call, with latents as its image."""
    generator = torch.Generator().manual_seed(3)
    return pipeline(
        PROMPT, list(people[0]), num_inference_steps=2, generator=generator, output_type="latent", **options
    )


def difference(a, b):
    """Distance of two latents as a part of the length of one of them."""
    return float((a - b).norm() / a.norm())


def dequantized(weight):
    """What a weight in NF4 stands for."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def put_rounded(plain, rounded):
    """Give a model of full precision what the weights of a rounded one stand for; returns how many there are."""
    weights, changed = dict(plain.named_parameters()), 0
    for name, weight in rounded.named_parameters():
        in_8_bits = weight.dtype == torch.float8_e4m3fn
        if in_8_bits or hasattr(weight, "quant_state"):
            value = weight.data.float() if in_8_bits else dequantized(weight)
            assert not torch.equal(value, weights[name].data), "rounding changes something"
            weights[name].data.copy_(value)
            changed += value.numel()
            assert "lora_" not in name, "experts and routers stay as they were trained"
    return changed


def test_low_memory_draws_the_same_image_with_every_layer_in_main_memory(load, people, tmp_path):
    low = load(memory="low")
    assert torch.equal(drawn(low, people).images, drawn(load(), people).images)
    weights = [*low.transformer.parameters(), *low.text_encoder_2.parameters(), *low.vae.parameters()]
    assert all(weight.is_meta for weight in weights), "again, after the call"
    with pytest.raises(ValueError, match='attention maps need the weights of a whole block; .*memory="medium"'):
        drawn(low, people, output_attention=True)
    with pytest.raises(ValueError, match="weights are offloaded one by one"):
        low.save_pretrained(tmp_path / "copy")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("fp8", {"memory": "medium"}),
        ("fp8", {"memory": "high", "quantize": "fp8"}),
        pytest.param("nf4", {"memory": "medium", "quantize": "nf4"}, marks=NEEDS_BITSANDBYTES),
        pytest.param("nf4", {"memory": "high", "quantize": "nf4"}, marks=NEEDS_BITSANDBYTES),
    ],
)
def test_fewer_bits_draw_what_their_rounded_weights_draw(load, people, tmp_path, form, options):
    """Also the attention maps; experts stand over a rounded layer as over the same weights in full precision."""
    few, plain = load(**options), load()
    exact = drawn(plain, people).images
    expected = num_quantized(plain.transformer, form)
    assert put_rounded(plain.transformer, few.transformer) == expected
    blocks = [w for name, w in plain.transformer.named_parameters() if "_blocks" in name and "lora" not in name]
    assert expected > 0.9 * sum(weight.numel() for weight in blocks)
    in_t5 = put_rounded(plain.text_encoder_2, few.text_encoder_2)
    assert in_t5 == sum(layer.weight.numel() for _, layer in quantizable(plain.text_encoder_2, form, KEPT_T5))
    actual, reference = (drawn(each, people, output_attention=True) for each in (few, plain))
    torch.testing.assert_close(actual.images, reference.images, rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.attention, reference.attention, rtol=0, atol=1e-6)
    assert 1e-3 < difference(exact, actual.images) < 0.2, "of the image in full precision"
    with pytest.raises(ValueError, match='weights are rounded; load the pipeline with memory="high"'):
        few.save_pretrained(tmp_path / "copy")


def test_medium_memory_without_rounding_draws_the_same_image(load, people):
    assert torch.equal(drawn(load(memory="medium", quantize="none"), people).images, drawn(load(), people).images)


@pytest.mark.parametrize("form", ["fp8", pytest.param("nf4", marks=NEEDS_BITSANDBYTES)])
def test_t5_reads_as_its_rounded_weights_read(generator_folder, form):
    """At widths of whole blocks, its last layers included, to whose dtype T5 casts what it gives them."""
    pipeline = load_generator(generator_folder)
    config = T5Config(
        vocab_size=64, d_model=64, d_kv=32, d_ff=128, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )  # fmt: skip
    plain = T5EncoderModel(config).eval()
    pipeline.text_encoder_2 = T5EncoderModel(config).eval()
    pipeline.text_encoder_2.load_state_dict(plain.state_dict())
    quantize(pipeline, form, torch.float32, torch.device("cpu"))
    assert put_rounded(plain, pipeline.text_encoder_2) == 2 * (4 * 64 * 64 + 3 * 64 * 128)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        few, reference = (each(tokens).last_hidden_state for each in (pipeline.text_encoder_2, plain))
    torch.testing.assert_close(few, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["fp8", pytest.param("nf4", marks=NEEDS_BITSANDBYTES)])
def test_rounded_weights_take_the_memory_that_doctor_counts(load, form):
    few, plain = load(quantize=form).transformer, load().transformer
    counted = sizes(
        dict(plain.config), SPEC, references=2, text_tokens=12, token_px=8, others={"text_encoder_2": 0}, t5_kept=0
    )
    held, in_code = 0, 0
    for name, weight in few.named_parameters():
        held += weight.numel() * weight.element_size() if "lora_" not in name else 0
        if state := getattr(weight, "quant_state", None):
            held += sum(each.numel() * each.element_size() for each in (state.absmax, state.state2.absmax))
            in_code += 4 - (state.absmax.numel() % 256 == 0) * 4  # a last group of scales that is not full
    assert held == pytest.approx(base_bytes(counted, form, 4), abs=in_code)


@NEEDS_BITSANDBYTES
def test_layers_whose_rows_are_no_whole_blocks_are_not_rounded_to_4_bits(generator_folder):
    pipeline = load_generator(generator_folder)
    quantize(pipeline, "nf4", torch.float32, torch.device("cpu"))
    assert pipeline.text_encoder_2.config.d_model % 64 != 0
    assert {weight.dtype for weight in pipeline.text_encoder_2.parameters()} == {torch.float32}
    assert not any(hasattr(weight, "quant_state") for weight in pipeline.text_encoder_2.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "none"}, "memory is one of low, medium, high, not 'none'"),
        ({"quantize": "int8"}, "quantize is one of none, fp8, nf4, not 'int8'"),
        (
            {"memory": "low", "quantize": "fp8"},
            "low memory moves layer by layer and rounds nothing; use medium or high",
        ),
        ({"quantize": "nf4"}, r"nf4 needs bitsandbytes, which is not installed; run: pip install -e '.\[lowmem\]'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("mcpipe.flux.quantization.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        MultiCrafterPipeline.from_pretrained(tmp_path / "missing", adapter=tmp_path, **options)


def test_the_command_line_refuses_in_one_line(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "face.png")
    words = ["generate", "--reference", tmp_path / "face.png", "--prompt", PROMPT, "--out", tmp_path / "out.png"]
    low = ["--memory", "low"]
    lines = {
        "--attention needs the weights of a whole block; say --memory medium": [*low, "--attention", tmp_path / "maps"],
        "low memory moves layer by layer and rounds nothing; use medium or high with fp8": [*low, "--quantize", "fp8"],
    }
    for line, more in lines.items():
        assert main([str(word) for word in [*words, *more]]) == 1
        assert capsys.readouterr().err.splitlines() == [f"error: {line}"]
    assert "bitsandbytes" not in sys.modules or find_spec("bitsandbytes"), "nothing imports it unasked"
