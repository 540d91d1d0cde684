"""What can be known before anything runs: checkpoints by their first bytes, weights and memory without weights."""

import contextlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from imports import ROOT
from record_fixtures import pair_prompt
from safetensors.torch import save_file

from mcpipe.cli.__main__ import main
from mcpipe.cli.doctor.checkpoints import ULTRALYTICS, digest, num_weights, pickled
from mcpipe.cli.doctor.checks import model_rows, package_rows, source_rows
from mcpipe.cli.doctor.fits import fewer_bits
from mcpipe.cli.doctor.memory import GeneratorSize, Hardware, capacity, read_generator
from mcpipe.cli.doctor.reinforcement import scorer_bytes
from mcpipe.cli.doctor.texts import text_rows
from mcpipe.cli.settings import read_content
from mcpipe.core.schemas.curation import ClipCaption
from mcpipe.core.shards import write_shards
from mcpipe.flux.adapters import AdapterSpec, ExpertParams
from mcpipe.flux.budget import (
    FLUX_DEV,
    FLUX_DEV_OTHERS,
    GB,
    MemoryLayout,
    ReinforcementLayout,
    inference_plans,
    plan,
    reinforcement_plan,
    sizes,
)

MODELS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]
EXPERTS = ExpertParams(num_experts=4, top_k=1, router="st", placement="ffn_out")
PAPER = AdapterSpec(rank=512, experts=EXPERTS, image_size=512, reference_size=320)


@pytest.fixture(scope="module")
def paper():
    """The paper's network, counted without weights."""
    return sizes(FLUX_DEV, PAPER, references=2, text_tokens=512, token_px=16, others=FLUX_DEV_OTHERS)


def test_the_real_network_has_as_many_weights_as_published(paper):
    """FLUX.1-dev, and UNO's plain LoRA and experts in all 95 output layers, reckoned by hand from their shapes."""
    assert paper.base == 11_901_408_320
    width, wide = 3072, 4 * 3072
    double = 19 * 8 * 2 * 512 * width
    single = 38 * 3 * 2 * 512 * width
    assert paper.plain == double + single
    layers = 38 * [(wide, width)] + 38 * [(width + wide, width)]
    assert paper.experts == sum(4 * 512 * (rows + columns) + 4 * rows for rows, columns in layers)
    assert round(paper.trained / 1e6) == 3471
    assert (paper.tokens, paper.blocks, paper.width) == (2336, 57, 3072)


def test_where_experts_stand_decides_how_many_weights_are_trained():
    """1,794 M with experts on the picture's feed-forward networks alone, which one large GPU can hold."""
    spec = PAPER.model_copy(update={"experts": EXPERTS.model_copy(update={"placement": "image"})})
    counted = sizes(FLUX_DEV, spec, references=2, text_tokens=512, token_px=16, others=FLUX_DEV_OTHERS)
    assert round(counted.trained / 1e6) == 1794
    assert plan(counted, MemoryLayout(1, "none", 1, checkpointing=True, averaged=False)).total / GB < 0.92 * 80


def test_memory_is_what_the_weights_take_and_sharding_divides_it(paper):
    alone = plan(paper, MemoryLayout(1, "none", 0, checkpointing=True, averaged=False)).parts
    kept = ("frozen transformer", "adapter (float32)", "gradients (float32)", "optimiser")
    assert sum(alone[part] for part in kept) / GB == pytest.approx(23.80 + 16 * paper.trained / GB, abs=0.01)
    for sharding, frozen in (("adapter", 1), ("all", 8)):
        spread = plan(paper, MemoryLayout(8, sharding, 0, checkpointing=True, averaged=False)).parts
        assert spread["frozen transformer"] == alone["frozen transformer"] / frozen
        assert all(spread[part] == alone[part] / 8 for part in kept[1:])
    single, four = (plan(paper, MemoryLayout(1, "none", n, checkpointing=True, averaged=False)) for n in (1, 4))
    assert four.total - single.total == pytest.approx(3 * single.parts["activations (estimate)"])
    assert single.parts["activations (estimate)"] / GB == pytest.approx(0.82 + 0.29, abs=0.01)
    averaged = plan(paper, MemoryLayout(1, "none", 0, checkpointing=True, averaged=True))
    assert averaged.total - sum(alone.values()) == pytest.approx(4 * paper.trained)


def stage_three(sharding="adapter", states=3, scorers=5 * GB, **changes):
    memory = MemoryLayout(8, sharding, 1, checkpointing=True, averaged=False)
    return ReinforcementLayout(memory, states, scorers, **({"graphs_wait": True, "scorers_rest": False} | changes))


def test_stage_three_holds_one_gradient_shares_of_it_if_sharded_and_the_reward_models(paper):
    """Every pass adds to ``.grad`` itself; tests/train/rl/test_rl.py holds that."""
    whole, shared = (reinforcement_plan(paper, stage_three(sharding)).parts for sharding in ("none", "adapter"))
    assert whole["gradients (float32)"] == whole["adapter (float32)"] == 4 * paper.trained
    assert shared["gradients (float32)"] == shared["adapter (float32)"] == 4 * paper.trained / 8
    assert whole["reward models"] == shared["reward models"] == 5 * GB
    stage_two = plan(paper, MemoryLayout(8, "adapter", 3, checkpointing=True, averaged=False))
    kept = FLUX_DEV_OTHERS["vae"] * 4 - stage_two.parts["text encoders and VAE"] + 5 * GB
    assert sum(shared.values()) == pytest.approx(stage_two.total + kept), "text encoders are released"


def test_reward_models_that_rest_take_the_room_of_activations_if_no_graph_waits(paper):
    resting = {"scorers_rest": True}
    activations = reinforcement_plan(paper, stage_three()).parts["activations (estimate)"]
    assert reinforcement_plan(paper, stage_three(**resting)).parts["reward models"] == 5 * GB
    parts = reinforcement_plan(paper, stage_three(**resting, graphs_wait=False)).parts
    assert parts["reward models"] == 5 * GB - activations
    assert reinforcement_plan(paper, stage_three(**resting, graphs_wait=False, scorers=GB)).parts["reward models"] == 0


def test_reward_models_are_measured_by_their_files_or_as_published(tmp_path):
    folders = {name: ROOT / MODELS[name] for name in ("reward_clip", "reward_hps", "faces", "faces_heldout")}
    packs = sum(file.stat().st_size for name in ("faces", "faces_heldout") for file in folders[name].glob("*.onnx"))
    hps = sum(file.stat().st_size for file in folders["reward_hps"].glob("*.pt"))
    assert scorer_bytes(folders) == packs + hps + 4 * num_weights(folders["reward_clip"])
    assert scorer_bytes({name: tmp_path / name for name in folders}) / GB == pytest.approx(6.4, abs=0.1)


def test_the_paper_configuration_is_refused_where_it_does_not_fit_and_told_what_fits(paper, tmp_path, monkeypatch):
    content = read_content(ROOT / "params.yaml", "paper", [])
    for name in ("MCPIPE_SHARDING", "MCPIPE_GRADIENT_CHECKPOINTING", "MCPIPE_ACCUMULATION_STEPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mcpipe.cli.doctor.memory.sizes", lambda *_, **__: paper)  # counted once
    free = {"bytes": 1e15}
    monkeypatch.setattr(
        "mcpipe.cli.doctor.memory.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(free["bytes"]))
    )

    def problems(gpus, gpu_gb):
        return capacity(content, {"generator": tmp_path / "FLUX.1-dev"}, Hardware(gpus, gpu_gb, tmp_path)).problems

    switches = "has room for 73.6 GB; it fits with MCPIPE_SHARDING=adapter"
    multi, reinforced = problems(16, 80)
    assert "train_multi needs 122.2 GB" in multi
    assert multi.endswith(switches)
    assert "train_rl needs 151.5 GB, of which 65.4 GB for activations (estimate)" in reinforced
    assert reinforced.endswith(f"{switches} MCPIPE_GRADIENT_CHECKPOINTING=1")
    assert problems(8, 80)[0].endswith(f"{switches} MCPIPE_GRADIENT_CHECKPOINTING=1")
    monkeypatch.setenv("MCPIPE_SHARDING", "adapter")
    monkeypatch.setenv("MCPIPE_GRADIENT_CHECKPOINTING", "1")
    assert problems(16, 80) == problems(8, 80) == []
    (smaller,) = [line for line in problems(16, 24) if line.startswith("train_rl")]
    assert "MCPIPE_SHARDING=all" in smaller
    alone, rl_alone = problems(1, 80)
    rounded = "MCPIPE_GRADIENT_CHECKPOINTING=1 MCPIPE_QUANTIZE=nf4 MCPIPE_ACCUMULATION_STEPS=8"
    assert alone.endswith(f"has room for 73.6 GB; rounded, it fits with {rounded}")
    assert problems(1, 48)[0].endswith(
        "rounded, it fits with MCPIPE_GRADIENT_CHECKPOINTING=1 MCPIPE_QUANTIZE=nf4 MCPIPE_OPTIMIZER=paged_adamw8bit "
        "MCPIPE_ACCUMULATION_STEPS=8"
    )
    assert "use more GPUs" in problems(1, 24)[0]
    assert "use more GPUs" in rl_alone
    free["bytes"] = 1e9
    assert "has 1.0 GB left" in problems(8, 141)[0]


def test_less_memory_for_drawing_rounds_then_offloads(paper):
    """FLUX.1-dev with two references at 512 px: 24 GB hold ``medium``, 12 GB ``low``."""
    totals = {mode: each.total / GB for mode, each in inference_plans(paper).items()}
    assert list(totals) == ["low", "medium none", "medium", "medium nf4", "high", "high fp8", "high nf4"]
    assert totals["low"] < 0.92 * 12
    assert totals["medium"] < 0.92 * 24 < totals["high"]
    medium = inference_plans(paper)["medium"].parts
    kept = paper.base - paper.rounded["fp8"]
    assert 0 < kept < 0.01 * paper.base, "only the ends of the network are not rounded"
    assert medium["frozen transformer"] == paper.rounded["fp8"] + 2 * kept
    assert medium["adapter"] == 2 * paper.trained
    width = 3072
    experts = 4 * 512 * (5 * width + width) + 4 * 5 * width
    assert paper.largest == 5 * width * width + width + experts, "output of a single block, experts included"


def test_four_bits_hold_the_transformer_and_t5_in_a_quarter(paper):
    """By hand: blocks of 64 with a scale of one byte, 256 of which share one of four bytes; biases are not rounded."""
    plans = inference_plans(paper)
    per_weight = 0.5 + 1 / 64 + 4 / (64 * 256)
    rounded = paper.rounded["nf4"]
    assert 0 < paper.rounded["fp8"] - rounded < 1e-3 * paper.base, "biases"
    expected = per_weight * rounded + 2 * (paper.base - rounded)
    assert plans["medium nf4"].parts["frozen transformer"] == pytest.approx(expected)
    embedding = 32_128 * 4_096
    t5 = 2 * embedding + per_weight * (FLUX_DEV_OTHERS["text_encoder_2"] - embedding)
    assert plans["high nf4"].parts["text encoders"] == pytest.approx(2 * FLUX_DEV_OTHERS["text_encoder"] + t5)
    assert plans["high nf4"].total < plans["medium"].total < plans["high fp8"].total < plans["medium none"].total
    half = replace(paper, plain=paper.plain // 2, experts=paper.experts // 2)
    assert inference_plans(half)["medium nf4"].total / GB < 0.92 * 12 < plans["medium nf4"].total / GB


def test_training_in_fewer_bits_is_planned(paper):
    layout = MemoryLayout(1, "none", 1, checkpointing=True, averaged=False)
    plans = fewer_bits(paper, layout)
    assert list(plans) == ["none, adamw", "nf4, adamw", "nf4, adamw8bit", "nf4, paged_adamw8bit"]
    totals = [each.total for each in plans.values()]
    assert totals == sorted(totals, reverse=True)
    moments = [each.parts["optimiser"] / paper.trained for each in plans.values()]
    assert moments == pytest.approx([8, 8, 2 + 2 * 4 / 256, 0])
    averaged = fewer_bits(paper, replace(layout, averaged=True))["nf4, paged_adamw8bit"].parts["optimiser"]
    assert averaged == 4 * paper.trained, "the average stays in float32 on the GPU"


def test_a_generator_that_is_there_is_measured_by_its_files():
    size = read_generator(ROOT / MODELS["generator"])
    assert size.config["num_layers"] == 2
    assert size.text_tokens == 64
    assert set(size.others) == {"text_encoder", "text_encoder_2", "vae"}
    assert GeneratorSize().text_tokens == 512


def test_every_checkpoint_of_the_zoo_is_what_its_place_asks_for():
    rows = list(model_rows({"models": MODELS}, ROOT))
    assert [row.about for row in rows] == [f"models.{name}" for name in MODELS]
    assert not [row for row in rows if row.verdict == "problem"]


class Harm:
    def __reduce__(self):
        return print, ("unpickled",)


def harmful(folder):
    return saved(folder / "pose.pt", Harm())


def copied(name, spoil):
    def make(folder):
        place = folder / "models" / name
        shutil.copytree(ROOT / MODELS[name], place)
        spoil(place)
        return place

    return make


def cut(pattern):
    def spoil(folder):
        file = next(folder.glob(pattern))
        file.write_bytes(file.read_bytes()[:-1])

    return spoil


def other_class(folder):
    file = folder / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"architectures": ["BertModel"]}), encoding="utf-8"
    )


def lost_shard(folder):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00002-of-2.safetensors"}}), encoding="utf-8"
    )


def boundless(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("pose", lambda folder: folder / "gone.pt", "no pose checkpoint"),
        ("pose", harmful, "would import builtins.print when unpickled"),
        ("segmenter", copied("segmenter", cut("*.pt")), "is cut short, or is no checkpoint of torch.save"),
        (
            "faces",
            copied("faces", lambda folder: (folder / "det.onnx").write_text("onnx", encoding="utf-8")),
            "det.onnx is no ONNX model",
        ),
        ("captioner", copied("captioner", other_class), "holds BertModel, not Qwen2_5_VLForConditionalGeneration"),
        ("clip", copied("clip", cut("*.safetensors")), "model.safetensors is no safetensors file, or is cut short"),
        ("clip", copied("clip", lost_shard), "lacks model-00002-of-2.safetensors"),
        ("dino", copied("dino", boundless), "model.safetensors is no safetensors file"),
        ("generator", copied("generator", lambda folder: shutil.rmtree(folder / "vae")), "no vae folder"),
        ("generator", copied("clip", lambda folder: None), "no "),
        ("hps", copied("hps", lambda folder: next(folder.glob("*.pt")).unlink()), "lacks *.pt"),
    ],
)
def test_a_damaged_or_strange_checkpoint_is_named_without_being_loaded(tmp_path, capsys, name, make, reason):
    row = next(model_rows({"models": {name: str(make(tmp_path))}}, tmp_path))
    assert row.verdict == "problem"
    assert reason in row.message
    assert "unpickled\n" not in capsys.readouterr().out


def saved(file, content, **options):
    torch.save(content, file, **options)
    return file


def test_what_is_no_checkpoint_of_torch_is_one_line_and_nothing_is_unpickled(tmp_path, capfd):
    """Every kind of file and, of a real checkpoint, every way to cut or spoil its pickle."""
    file = tmp_path / "weights.pt"
    for content in (b"", b"<html>", b"PK", b"PK\x03\x04", pickle.dumps(Harm()), bytes(1000), b"\x80\x02}q\x00."):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no checkpoint of torch.save"):
            pickled(file)
    with pytest.raises(ValueError, match="is no checkpoint of torch.save in PyTorch 1.6 or later"):
        pickled(saved(file, {"weight": torch.ones(2)}, _use_new_zipfile_serialization=False))
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    with pytest.raises(ValueError, match="got a torchscript checkpoint$"):
        pickled(file)
    assert pickled(saved(file, {"weight": torch.ones(2)})) == "weights.pt names nothing strange"
    (original,) = (content for name, content in members(file).items() if name.endswith("data.pkl"))
    for length in range(len(original)):
        rewritten(file, original[:length])
        with pytest.raises(ValueError, match=f"^{file} is cut short") as fault:
            pickled(file)
        assert "\n" not in str(fault.value)
    random = np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(original)
        spoilt[random.integers(len(spoilt))] = random.integers(256)
        rewritten(file, bytes(spoilt))
        with contextlib.suppress(ValueError):
            pickled(file)
    assert "unpickled" not in capfd.readouterr().out


def members(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(file, pickle_bytes):
    content = members(file)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, pickle_bytes if name.endswith("data.pkl") else data)


def test_weights_may_name_what_torch_allows_and_pose_checkpoints_what_ultralytics_needs(tmp_path):
    file = tmp_path / "weights.pt"
    layer = torch.nn.Linear(1, 1)
    for content, strange in ((layer, "torch.nn.modules.linear.Linear"), (Path("a"), r"pathlib\.(_local\.)?PosixPath")):
        with pytest.raises(ValueError, match=f"would import {strange}"):
            pickled(saved(file, content))
        pickled(file, ULTRALYTICS)
    for content in (os.system, torch.load, torch.nn.modules.utils.consume_prefix_in_state_dict_if_present, Harm()):
        with pytest.raises(ValueError, match="when unpickled; do not load it"):
            pickled(saved(file, content), ULTRALYTICS)
    saved(file, Harm(), pickle_protocol=4)  # its names are made on the stack, where torch does not look
    with pytest.raises(ValueError, match="is cut short, or is no checkpoint"):
        pickled(file, ULTRALYTICS)


def test_weights_are_counted_by_headers_and_an_empty_file_is_no_checkpoint(tmp_path):
    for number in (1, 2):
        save_file({"a": torch.ones(2, 3), "b": torch.ones(number)}, tmp_path / f"{number}.safetensors")
    assert num_weights(tmp_path) == 6 + 1 + 6 + 2
    for content in (b"", b"\x02" + bytes(7) + b"{}", b"<html>"):
        (tmp_path / "3.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"3\.safetensors (is no safetensors file|holds no tensors)"):
            num_weights(tmp_path)


def test_hashes_are_those_of_dvc(tmp_path):
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.txt").write_text("b", encoding="utf-8")
    (folder / "a.txt").write_text("a", encoding="utf-8")
    files = LocalFileSystem()
    store = HashFileDB(files, str(tmp_path / "store"))
    for path in (folder, folder / "a.txt"):
        assert digest(path) == build(store, str(path), files, "md5", dry_run=True)[2].hash_info.value


def test_a_model_that_changed_since_the_last_run_is_noted(tmp_path):
    shutil.copy(ROOT / MODELS["pose"], tmp_path / "pose.pt")
    for md5, verdict in ((digest(tmp_path / "pose.pt"), "ok"), ("0" * 32, "note")):
        lock = {"stages": {"subjects": {"deps": [{"path": "pose.pt", "md5": md5}]}}}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
        assert next(model_rows({"models": {"pose": "pose.pt"}}, tmp_path)).verdict == verdict


def test_packages_and_sources_that_are_missing_are_told(tmp_path):
    (tmp_path / "requirements.lock").write_text("torch==2.15.0 \\\n    --hash=sha256:00\ndvc==1.0\n", encoding="utf-8")
    versions = {"torch": "2.15.0+cu130", "dvc": "3.67.1"}
    rows = list(package_rows(tmp_path / "requirements.lock", lambda name: versions.get(name, "1.0")))
    assert [(row.verdict, row.message.split(": ")[1]) for row in rows] == [("note", "dvc 3.67.1 instead of 1.0")]
    missing = list(source_rows({"source": {"clips": "gone", "faces": "data/world/faces"}}, tmp_path))
    assert [row.verdict for row in missing] == ["problem", "note"]


def test_texts_that_an_encoder_cuts_are_noted_with_what_is_lost(tmp_path):
    generator, data = ROOT / MODELS["generator"], tmp_path / "data"
    assert list(text_rows(tmp_path / "none", data)) == []
    (none,) = text_rows(generator, data)
    assert (none.verdict, "T5 reads 64 tokens" in none.message) == ("ok", True)
    short = ClipCaption(key="a", caption="two people in a park", attempts=1, closeup_captions=())
    write_shards([short], data / "captions", 8)
    write_shards([pair_prompt("two people in a park", "a", "b")], data / "pairs" / "rl", 8)
    (row,) = text_rows(generator, data)
    assert row.verdict == "ok"
    assert row.message == "2 captions and prompts, 0 in several windows of CLIP (77 tokens), none cut by T5 (64)"
    long = pair_prompt("two people, " * 60 + "a person with glasses", "a", "c")
    write_shards([long], data / "pairs" / "bench", 8)
    (row,) = text_rows(generator, data)
    assert row.verdict == "note"
    assert (
        "3 captions and prompts, 1 in several windows of CLIP (77 tokens), 1 cut by T5 (64): prompt a+c" in row.message
    )
    assert "glasses" in row.message


def test_doctor_passes_the_embedded_configuration_and_refuses_the_paper_without_its_models(tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "everything is there and fits" in output.out
    assert "frozen transformer" in output.out
    assert main(["doctor", "--conf", "paper", "--gpu-gb", "80", "--data", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "11,901.4 M weights" in output.out
    assert "first source.clips" in output.err
    assert len(output.err.strip().splitlines()) == 1
