"""The documented way from an arm to DreamBench's scores: its lines draw what `mcpipe score` reads."""

import json
import re

import numpy as np
import pytest
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from imports import ROOT
from PIL import Image

from mcpipe.bench.suites import dreambench_single
from mcpipe.cli.answers import files_by_prompt
from mcpipe.flux.adapters import AdapterSpec, add_adapter, save_adapter


@pytest.fixture
def arm(generator, tmp_path):
    """An adapter as an arm leaves it."""
    spec = AdapterSpec(rank=2, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE, shift=1.5)
    add_adapter(generator.transformer, spec, seed=0)
    folder = tmp_path / "arm"
    folder.mkdir()
    save_adapter(generator.transformer, spec, folder)
    return folder


def test_the_documented_lines_draw_one_image_per_prompt_of_dreambench(arm, generator_folder, tmp_path, monkeypatch):
    (lines,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "focusdpo.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for place, folder in (("models/FLUX.1-dev", generator_folder), ("focusdpo/data/models/focus_dpo-0", arm)):
        assert lines.count(f'"{place}"') == 1
        lines = lines.replace(f'"{place}"', repr(str(folder)))
    monkeypatch.chdir(tmp_path)
    prompts = [{"prompt": f"a {name} in a park", "image_paths": [f"{name}/00.jpg"]} for name in ("mug", "cat")]
    (tmp_path / "dreambench_singleip.json").write_text(json.dumps(prompts), encoding="utf-8")
    for name in ("mug", "cat"):
        (tmp_path / "dreambench" / name).mkdir(parents=True)
        photo = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "dreambench" / name / "00.jpg")
    exec(lines, {})  # noqa: S102  the document's own
    tasks = dreambench_single((tmp_path / "dreambench_singleip.json").read_text(encoding="utf-8"))
    files, unknown = files_by_prompt(tmp_path / "images", {task.key for task in tasks})
    assert {key: len(some) for key, some in files.items()} == {"0000": 1, "0001": 1}
    assert not unknown
