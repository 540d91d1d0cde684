"""A pipeline that is saved and loaded again draws the same picture, and stock diffusers reads what it can know."""

import numpy as np
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE

from mcpipe.flux.adapters import AdapterSpec, ExpertParams, add_adapter, save_adapter, trainable
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.pipelines import MultiCrafterPipeline

EXPERTS = ExpertParams(num_experts=2, top_k=1, router="st")
SPEC = AdapterSpec(rank=4, experts=EXPERTS, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE, shift=2.0)


def test_a_saved_pipeline_draws_the_same_picture(generator_folder, tmp_path):
    trained = load_generator(generator_folder)
    add_adapter(trained.transformer, SPEC, seed=0)
    torch.manual_seed(0)
    for parameter in trainable(trained.transformer).values():
        parameter.data = torch.randn_like(parameter) * 0.1
    (tmp_path / "adapter").mkdir()
    save_adapter(trained.transformer, SPEC, tmp_path / "adapter")
    pipeline = MultiCrafterPipeline.from_pretrained(generator_folder, adapter=tmp_path / "adapter")
    pipeline.save_pretrained(tmp_path / "saved")
    again = MultiCrafterPipeline.from_pretrained(tmp_path / "saved")
    face = np.random.default_rng(0).integers(0, 255, (REFERENCE_SIZE, REFERENCE_SIZE, 3), np.uint8)
    drawn = [
        np.asarray(
            each("a person", [face], num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images[0]
        )
        for each in (pipeline, again)
    ]
    assert (drawn[0] == drawn[1]).all()
    stock = FluxPipeline.from_pretrained(tmp_path / "saved", local_files_only=True)
    base = load_generator(generator_folder)
    for name, weight in base.transformer.state_dict().items():
        assert torch.equal(stock.transformer.state_dict()[name], weight), name
    stock.load_lora_weights(tmp_path / "saved" / "adapter", weight_name="pytorch_lora_weights.safetensors")
