"""The zoo's SDXL with its IP-Adapter: stock classes read it, references act in their regions, a step trains it."""

import json

import numpy as np
import pytest
import torch
from imports import ROOT
from safetensors.torch import load_file

from focusdpo import sdxl_encode, sdxl_train
from focusdpo.__main__ import params, settings
from mcpipe.core.report import read_report
from mcpipe.core.shards import write_shards
from mcpipe.flux.adapters import PLAIN_FILE
from mcpipe.flux.encode import EncodeParams
from mcpipe.steps.generate_sdxl import SdxlArm
from mcpipe.steps.sdxl_drawing import SdxlDrawing, SdxlRequest, drawn_image
from mcpipe.steps.sdxl_files import SdxlFiles
from mcpipe.train.preference.params import PreferenceParams
from mcpipe.train.preference.records import DisruptedPair

SIZE = 96
MOST_BYTES = 2_200_000
"""Largest size of its own files; the other parts are links."""


@pytest.fixture(scope="module")
def files():
    places = settings()["sdxl"]["paths"]
    return SdxlFiles(*(ROOT / places[name] for name in ("pipeline", "ip_adapter", "image_encoder")))


@pytest.fixture(scope="module")
def pipeline(files):
    return SdxlArm(files, None).load()


def references(*greys):
    return [np.full((48, 48, 3), grey, np.uint8) for grey in greys]


def test_its_files_have_the_published_form_and_parts_of_the_zoo_are_links(files):
    folder = files.pipeline
    links = {part.name: part.resolve().relative_to(ROOT).as_posix() for part in folder.iterdir() if part.is_symlink()}
    assert links == {
        "vae": "zoo/generator/vae",
        "text_encoder": "zoo/generator/text_encoder",
        "tokenizer": "zoo/generator/tokenizer",
        "text_encoder_2": "zoo/clip_reward",
        "tokenizer_2": "zoo/clip_reward",
        "image_encoder": "zoo/clip_reward",
    }
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    named = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert all((folder / name).is_dir() for name in named)
    weights = load_file(files.ip_adapter)
    assert {name.split(".")[0] for name in weights} == {"image_proj", "ip_adapter"}
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    own = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in own if file.parent.resolve().is_relative_to(folder)) < MOST_BYTES


def test_another_reference_changes_its_own_half_most(pipeline):
    drawing = SdxlDrawing(SIZE, 4, 3.0)
    before, after = (
        drawn_image(pipeline, SdxlRequest("two people in a park", references(left, 200), 0), drawing).astype(float)
        for left in (20, 230)
    )
    changes = np.abs(before - after).mean((0, 2))
    assert changes[: SIZE // 2].mean() > changes[SIZE // 2 :].mean() > 0


@pytest.fixture
def dip(tmp_path):
    random = np.random.default_rng(0)
    winner, noise = random.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 10:50, 8:40] = masks[1, 10:50, 56:88] = True
    pair = DisruptedPair(
        key="pair0", kind="multi", caption="two people in a park", winner_similarity=1.0, loser_similarity=0.0,
        winner=winner, loser=np.where(masks.any(0)[..., None], noise, winner), masks=masks,
        references=np.stack(references(20, 200)),
    )  # fmt: skip
    write_shards([pair], tmp_path / "dip", 1)
    return tmp_path / "dip"


def test_one_step_of_an_arm_trains_and_is_drawn_with(files, pipeline, dip, tmp_path):
    paths, model = vars(files).values(), tmp_path / "focus_dpo-0"
    sdxl_encode.run(dip, *paths, tmp_path / "encoded", params("sdxl-encode", EncodeParams))
    step = params("sdxl-train", PreferenceParams).model_copy(update={"num_steps": 1, "batch_size": 1})
    sdxl_train.run(tmp_path / "encoded", *paths, model, step)
    assert read_report(model)["kept"] == 1
    assert any(weight.any() for name, weight in load_file(model / PLAIN_FILE).items() if ".lora.up." in name)
    request, drawing = SdxlRequest("two people in a park", references(20, 200), 0), SdxlDrawing(SIZE, 2, 3.0)
    assert np.isfinite(drawn_image(SdxlArm(files, model).load(), request, drawing)).all()
