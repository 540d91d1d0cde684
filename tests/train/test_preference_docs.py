"""The documented way from an arm to DreamBench's scores: its lines draw what `mcpipe score` reads."""

import json
import re

import numpy as np
import pytest
from diffusers import StableDiffusionXLPipeline
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from imports import ROOT
from PIL import Image
from sdxl_fixtures import saved_sdxl

from mcpipe.bench.suites import dreambench_single
from mcpipe.cli.answers import files_by_prompt
from mcpipe.flux.adapters import AdapterSpec, add_adapter, save_adapter
from mcpipe.sdxl.lora import add_lora, save_lora


@pytest.fixture
def arm(generator, tmp_path):
    """An adapter as an arm leaves it."""
    spec = AdapterSpec(rank=2, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE, shift=1.5)
    add_adapter(generator.transformer, spec, seed=0)
    folder = tmp_path / "arm"
    folder.mkdir()
    save_adapter(generator.transformer, spec, folder)
    return folder


@pytest.fixture
def sdxl(tmp_path):
    """SDXL and its IP-Adapter in the published files, and a LoRA as an arm leaves it."""
    folder, plus, _, _ = saved_sdxl(tmp_path)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    add_lora(pipeline.unet, 2, seed=0)
    (tmp_path / "arm").mkdir()
    save_lora(pipeline.unet, tmp_path / "arm", pipeline.unet.state_dict())
    return {
        "models/sdxl-base": folder, "models/IP-Adapter": plus.parent.parent, "ip-adapter-plus_sdxl_vit-h": plus.stem,
        "data/sdxl/focus_dpo-0": tmp_path / "arm", "float16).to(\"cuda\")": "float32)",
    }  # fmt: skip


def documented_lines(pipeline, places):
    """The page's lines that draw with a class of pipelines, with other places in place of its own."""
    page = (ROOT / "docs" / "focusdpo.md").read_text(encoding="utf-8")
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"import {pipeline}" in block]
    for place, folder in places.items():
        assert lines.count(place) == 1
        lines = lines.replace(place, str(folder))
    return lines


def check_drawn(lines, folder):
    """One image per prompt of two, under names that `mcpipe score` reads."""
    prompts = [{"prompt": f"a {name} in a park", "image_paths": [f"{name}/00.jpg"]} for name in ("mug", "cat")]
    (folder / "dreambench_singleip.json").write_text(json.dumps(prompts), encoding="utf-8")
    for name in ("mug", "cat"):
        (folder / "dreambench" / name).mkdir(parents=True)
        photo = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
        Image.fromarray(photo).save(folder / "dreambench" / name / "00.jpg")
    exec(lines, {})  # noqa: S102  the document's own
    tasks = dreambench_single((folder / "dreambench_singleip.json").read_text(encoding="utf-8"))
    files, unknown = files_by_prompt(folder / "images", {task.key for task in tasks})
    assert {key: len(some) for key, some in files.items()} == {"0000": 1, "0001": 1}
    assert not unknown


def test_the_documented_lines_draw_one_image_per_prompt_of_dreambench(arm, generator_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"models/FLUX.1-dev": generator_folder, "focusdpo/data/models/focus_dpo-0": arm}
    check_drawn(documented_lines("MultiCrafterPipeline", places), tmp_path)


def test_the_documented_lines_draw_them_with_sdxl(sdxl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_drawn(documented_lines("StableDiffusionXLPipeline", sdxl), tmp_path)
