"""A pipeline that is saved and loaded again draws the same picture, and stock diffusers reads what it can know."""

import numpy as np
import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, outputs

from mcpipe.flux.adapters import PLAIN_FILE, AdapterSpec, ExpertParams, add_adapter, save_adapter, trainable
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.pipelines import MultiCrafterPipeline

EXPERTS = ExpertParams(num_experts=2, top_k=1, router="st")
PLAIN = AdapterSpec(rank=4, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE, shift=2.0)
MIXED = PLAIN.model_copy(update={"experts": EXPERTS, "positions": "frame"})


def trained(generator_folder, spec, folder):
    """A pipeline with an adapter that matters."""
    pipeline = load_generator(generator_folder)
    add_adapter(pipeline.transformer, spec, seed=0)
    torch.manual_seed(0)
    for parameter in trainable(pipeline.transformer).values():
        parameter.data = torch.randn_like(parameter) * 0.1
    folder.mkdir()
    save_adapter(pipeline.transformer, spec, folder)
    return MultiCrafterPipeline.from_pretrained(generator_folder, adapter=folder)


def drawn(pipeline):
    face = np.random.default_rng(0).integers(0, 255, (REFERENCE_SIZE, REFERENCE_SIZE, 3), np.uint8)
    noise = torch.Generator().manual_seed(1)
    return pipeline("a person", [face], num_inference_steps=2, generator=noise, output_type="latent").images


def test_a_saved_pipeline_draws_the_same_picture(generator_folder, tmp_path):
    for name, spec in (("plain", PLAIN), ("mixed", MIXED)):
        pipeline = trained(generator_folder, spec, tmp_path / name)
        pipeline.save_pretrained(tmp_path / f"{name}_saved")
        again = MultiCrafterPipeline.from_pretrained(tmp_path / f"{name}_saved")
        assert again.spec == spec
        assert torch.equal(drawn(pipeline), drawn(again))
        again.save_pretrained(tmp_path / f"{name}_twice")
        assert torch.equal(drawn(pipeline), drawn(MultiCrafterPipeline.from_pretrained(tmp_path / f"{name}_twice")))


def test_stock_diffusers_loads_the_generator_and_the_plain_lora(generator_folder, tmp_path):
    base = load_generator(generator_folder)
    for name, spec in (("plain", PLAIN), ("mixed", MIXED)):
        pipeline = trained(generator_folder, spec, tmp_path / name)
        saved = tmp_path / f"{name}_saved"
        pipeline.save_pretrained(saved)
        stock = FluxPipeline.from_pretrained(saved, local_files_only=True)
        weights = stock.transformer.state_dict()
        assert weights.keys() == base.transformer.state_dict().keys()
        assert all(torch.equal(weights[key], weight) for key, weight in base.transformer.state_dict().items())
        stock.load_lora_weights(saved / "adapter", weight_name=PLAIN_FILE, local_files_only=True)
        ours, theirs = outputs(pipeline.transformer), outputs(stock.transformer)
        assert torch.allclose(ours, theirs, atol=1e-5) == (spec is PLAIN), "stock diffusers knows nothing of experts"


def test_what_cannot_be_saved_is_refused_with_what_to_do(generator_folder, tmp_path):
    pipeline = trained(generator_folder, PLAIN, tmp_path / "adapter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="is there and not empty; choose another folder"):
        pipeline.save_pretrained(tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]
    for option in ("variant", "push_to_hub", "max_shard_size"):
        with pytest.raises(ValueError, match=f"takes no {option}"):
            pipeline.save_pretrained(tmp_path / "new", **{option: "fp16"})
    with pytest.raises(ValueError, match="has no adapter"):
        MultiCrafterPipeline(**load_generator(generator_folder).components).save_pretrained(tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="give adapter="):
        MultiCrafterPipeline.from_pretrained(generator_folder)
    pipeline.fuse_lora()
    with pytest.raises(ValueError, match=r"call unfuse_lora\(\)"):
        pipeline.save_pretrained(tmp_path / "new")
    pipeline.unfuse_lora()
    pipeline.load_lora_weights(tmp_path / "adapter", weight_name=PLAIN_FILE, adapter_name="second")
    with pytest.raises(ValueError, match=r"call delete_adapters\('second'\)"):
        pipeline.save_pretrained(tmp_path / "new")
    pipeline.delete_adapters("second")
    pipeline.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "adapter" / PLAIN_FILE).is_file()
