"""Adapter files: UNO's as a start, and what is said of files that belong elsewhere."""

from contextlib import suppress

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_xlabs_flux_lora_to_diffusers
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, outputs, uno_weights, write_changing_adapter
from safetensors.torch import load_file, save_file

from mcpipe.flux.adapters import (
    EXPERTS_FILE,
    PLAIN_FILE,
    AdapterSpec,
    ExpertParams,
    add_adapter,
    load_adapter,
    merge_plain,
    read_spec,
    save_adapter,
    start_adapter,
)
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.starts import import_uno, start_lora
from mcpipe.flux.tokens import layout
from mcpipe.flux.uno import from_uno

EXPERTS = ExpertParams(num_experts=4, top_k=1, router="st")
PLAIN = AdapterSpec(rank=4, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
MIXED = PLAIN.model_copy(update={"experts": EXPERTS})


def test_a_merged_adapter_computes_the_same_up_to_rounding_unless_weights_are_bfloat16(generator_folder, tmp_path):
    folder = write_changing_adapter(load_generator(generator_folder), MIXED, tmp_path / "adapter")
    generator = load_generator(generator_folder)
    base = outputs(generator.transformer)
    load_adapter(generator, folder)
    expected = outputs(generator.transformer)
    assert (expected - base).abs().max() > 1e-3, "it matters"
    merge_plain(generator.transformer)
    merged = outputs(generator.transformer)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(merged, expected), "weights are merged"
    rounded = load_generator(generator_folder)
    load_adapter(rounded, folder)
    rounded.transformer.to(torch.bfloat16)
    merge_plain(rounded.transformer)
    assert not any(getattr(module, "merged", False) for module in rounded.transformer.modules())


def test_unos_layers_get_the_names_that_diffusers_gives_them():
    converted = from_uno(uno_weights())
    expected = _convert_xlabs_flux_lora_to_diffusers(uno_weights())
    assert {f"transformer.{key}" for key in converted} == expected.keys()
    assert all(torch.equal(weight, expected[f"transformer.{key}"]) for key, weight in converted.items())


def test_stages_start_from_unos_file_as_the_stock_pipeline_reads_it(generator_folder, tmp_path):
    file = tmp_path / "dit_lora.safetensors"
    save_file(uno_weights(), file)
    stock = load_generator(generator_folder)
    base = outputs(stock.transformer)
    stock.load_lora_weights(tmp_path, weight_name=file.name)
    expected = outputs(stock.transformer)
    assert (expected - base).abs().max() > 1e-3, "it matters"
    assert import_uno(file, tmp_path, IMAGE_SIZE, REFERENCE_SIZE) == PLAIN
    for spec in (PLAIN, MIXED):
        ours = load_generator(generator_folder)
        start_adapter(ours, tmp_path, spec, seed=1)
        torch.testing.assert_close(outputs(ours.transformer), expected, rtol=1e-5, atol=1e-5)
    ours = load_generator(generator_folder)
    start_lora(ours, file, PLAIN, seed=1)
    torch.testing.assert_close(outputs(ours.transformer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ({"num_double": 3}, "it is for 3 double and 2 single blocks, this generator has 2 double and 2 single blocks"),
        ({"width": 32}, r"to_\w+\.lora_\w\.weight is \(4, 32\), but \(4, 64\) in this generator"),
        ({"rank": 8}, r"has rank 8; it cannot go on with rank 4"),
    ],
)
def test_unos_files_of_another_generator_or_rank_are_named(generator_folder, tmp_path, sizes, fault):
    file = tmp_path / "dit_lora.safetensors"
    save_file(uno_weights(**sizes), file)
    with pytest.raises(ValueError, match=fault) as caught:
        start_lora(load_generator(generator_folder), file, PLAIN, seed=0)
    assert str(file) in str(caught.value)
    import_uno(file, tmp_path, IMAGE_SIZE, REFERENCE_SIZE)
    with pytest.raises(ValueError, match=fault) as caught:
        start_adapter(load_generator(generator_folder), tmp_path, PLAIN, seed=0)
    assert str(tmp_path) in str(caught.value)


def test_positions_travel_with_an_adapter_and_old_files_have_unos(generator_folder, tmp_path):
    pipeline = load_generator(generator_folder)
    add_adapter(pipeline.transformer, PLAIN.model_copy(update={"positions": "frame"}), seed=0)
    assert layout(pipeline, IMAGE_SIZE, REFERENCE_SIZE).positions == "frame"
    save_adapter(pipeline.transformer, PLAIN.model_copy(update={"positions": "frame"}), tmp_path)
    again = load_generator(generator_folder)
    assert layout(again, IMAGE_SIZE, REFERENCE_SIZE).positions == "unope"
    load_adapter(again, tmp_path)
    assert layout(again, IMAGE_SIZE, REFERENCE_SIZE).positions == "frame"
    stored = (tmp_path / "adapter.json").read_text(encoding="utf-8")
    (tmp_path / "adapter.json").write_text(stored.replace(',\n "positions": "frame"', ""), encoding="utf-8")
    assert read_spec(tmp_path).positions == "unope"


def test_files_that_are_not_unos_are_named(tmp_path):
    file = tmp_path / "lora.safetensors"
    with pytest.raises(FileNotFoundError, match="lora.safetensors"):
        import_uno(file, tmp_path, IMAGE_SIZE, REFERENCE_SIZE)
    half = uno_weights()
    del half["single_blocks.1.processor.qkv_lora.up.weight"]
    for weights, fault in (
        ({"something": torch.zeros(1)}, r"no LoRA matrices but unknown keys \(something\)"),
        (uno_weights() | {"double_blocks.0.processor.mlp_lora.down.weight": torch.zeros(1, 1)}, "no layer that UNO"),
        (half, "lacks its other half"),
    ):
        save_file(weights, file)
        with pytest.raises(ValueError, match=fault) as caught:
            import_uno(file, tmp_path, IMAGE_SIZE, REFERENCE_SIZE)
        assert str(file) in str(caught.value)


def test_adapters_of_another_zoo_are_refused(generator, generator_folder, tmp_path):
    folder = write_changing_adapter(generator, MIXED, tmp_path / "adapter")
    same = load_generator(generator_folder)
    same.transformer.to(torch.bfloat16)
    load_adapter(same, folder)
    other = load_generator(generator_folder)
    other.transformer.x_embedder.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match=rf"{PLAIN_FILE} was trained on another generator"):
        load_adapter(other, folder)


def test_adapters_whose_files_disagree_are_refused(generator, generator_folder, tmp_path):
    folder = write_changing_adapter(generator, MIXED, tmp_path / "adapter")
    description = folder / "adapter.json"
    as_written = description.read_text(encoding="utf-8")
    for was, becomes, fault in (
        ('"rank": 4', '"rank": 8', rf"{PLAIN_FILE} does not fit: its rank is 4 at .*, the adapter's 8"),
        (
            '"num_experts": 4',
            '"num_experts": 2',
            rf"{EXPERTS_FILE} does not fit: it has 4 experts at .*, the adapter 2",
        ),
        ('"placement": "ffn_out"', '"placement": "double"', rf"{PLAIN_FILE} does not fit: \d+ weights are missing"),
    ):
        description.write_text(as_written.replace(was, becomes), encoding="utf-8")
        with pytest.raises(ValueError, match=fault):
            load_adapter(load_generator(generator_folder), folder)
    description.write_text(as_written, encoding="utf-8")
    with pytest.raises(ValueError, match=r"adapter\.json has experts .* cannot go on with"):
        start_adapter(load_generator(generator_folder), folder, PLAIN, seed=0)


def test_stock_loaders_do_not_take_the_experts_for_one_large_lora(generator, generator_folder, tmp_path):
    """Under peft's own names they would load all experts, added up, without a word."""
    folder = write_changing_adapter(generator, MIXED, tmp_path / "adapter")
    trap = {
        key.replace("lora_moe_", "lora_"): weight
        for key, weight in load_file(folder / EXPERTS_FILE).items()
        if "router" not in key
    }
    stock = load_generator(generator_folder)
    base = outputs(stock.transformer)
    with suppress(ValueError, KeyError, IndexError, TypeError, AttributeError):  # a refusal is as good
        stock.load_lora_weights(folder, weight_name=EXPERTS_FILE)
    assert torch.equal(outputs(stock.transformer), base)
    fooled = load_generator(generator_folder)
    fooled.load_lora_weights({f"transformer.{key.removeprefix('transformer.')}": w for key, w in trap.items()})
    assert (outputs(fooled.transformer) - base).abs().max() > 1e-2, "what the names protect from"
