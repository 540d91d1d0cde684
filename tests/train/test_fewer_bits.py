"""Training over a base in 4 bits and with moments in 8 bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE
from training_fixtures import MULTI, NEEDS_BITSANDBYTES, SINGLE, Killed, files_of, outcome

from mcpipe.execution.store import progress_of
from mcpipe.flux import quantization
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop import runtime
from mcpipe.train.loop.checkpoint import FILE
from mcpipe.train.loop.runtime import TrainingRuntime, prepare, runtime_from
from stages import s07_train_single, s08_train_multi

SHORT = MULTI.model_copy(update={"num_steps": 2})


def standing_for(layer, precision, device):
    """A layer in full precision with the weights that NF4 would stand for."""
    from bitsandbytes.functional import dequantize_4bit

    rounded = IN_NF4(layer, precision, device).weight
    layer.weight.data = dequantize_4bit(rounded.data, rounded.quant_state)
    return layer


IN_NF4 = quantization._in_nf4


@NEEDS_BITSANDBYTES
def test_experts_over_a_base_in_4_bits_learn_as_over_the_weights_it_stands_for(
    encoded, stage_one, generator_folder, tmp_path, monkeypatch
):
    """Stage 2, with blocks that are computed again in the backward pass."""

    def run(name):
        s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / name, SHORT)
        return outcome(tmp_path / name)

    exact, _ = run("exact")
    monkeypatch.setenv("MCPIPE_QUANTIZE", "nf4")
    monkeypatch.setenv("MCPIPE_GRADIENT_CHECKPOINTING", "1")
    curves, weights = run("rounded")
    monkeypatch.setattr(quantization, "_in_nf4", standing_for)
    monkeypatch.setattr(runtime, "is_quantized", lambda network: True)
    expected, reference = run("reference")
    for name in ("flow", "attention", "balance", "grad_norm"):
        np.testing.assert_allclose(curves[name], expected[name], rtol=1e-4, err_msg=name)
    for name in reference:
        np.testing.assert_allclose(weights[name], reference[name], rtol=1e-3, atol=3e-5, err_msg=name)
    assert np.abs(np.subtract(curves["flow"], exact["flow"])).max() > 1e-4, "rounding changes something"
    np.testing.assert_allclose(curves["flow"], exact["flow"], rtol=0.1)


@NEEDS_BITSANDBYTES
@pytest.mark.parametrize("kind", ["adamw8bit", "paged_adamw8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_moments_in_8_bits_go_on_where_they_were_killed(
    encoded, stage_one, generator_folder, tmp_path, killed_at, monkeypatch, kind
):
    params = MULTI.model_copy(update={"num_steps": 3, "ema_decay": 0.9})

    def run(name, last=None):
        killed_at(last)
        s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / name, params)

    run("float32")
    for name, value in (("MCPIPE_QUANTIZE", "nf4"), ("MCPIPE_OPTIMIZER", kind)):
        monkeypatch.setenv(name, value)
    run("undisturbed")
    with pytest.raises(Killed):
        run("out", last=2)
    (file,) = progress_of(tmp_path / "out").rglob(FILE)
    state = torch.load(file, weights_only=True)["optimizer"]["state"]
    quantized = [part for parts in state.values() for part in parts.values() if isinstance(part, dict)]
    assert {part["state1"].dtype for part in quantized} == {torch.uint8, torch.float32}, "few weights keep float32"
    run("out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "undisturbed")
    curves, _ = outcome(tmp_path / "undisturbed")
    np.testing.assert_allclose(curves["flow"], outcome(tmp_path / "float32")[0]["flow"], rtol=0.1)


@NEEDS_BITSANDBYTES
def test_stage_one_runs_over_a_base_in_4_bits(encoded, generator_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MCPIPE_QUANTIZE", "nf4")
    s07_train_single.run(encoded, generator_folder, tmp_path / "out", SINGLE)
    curves, weights = outcome(tmp_path / "out")
    assert len(curves["flow"]) == SINGLE.num_steps
    assert not any("quant" in name or "absmax" in name for name in weights), "the adapter alone is written"
    assert any(np.abs(weight).max() > 0 for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MCPIPE_QUANTIZE": "fp8"}, "MCPIPE_QUANTIZE should be one of none, nf4, found 'fp8'"),
        (
            {"MCPIPE_OPTIMIZER": "sgd"},
            "MCPIPE_OPTIMIZER should be one of adamw, adamw8bit, paged_adamw8bit, found 'sgd'",
        ),
        (
            {"MCPIPE_QUANTIZE": "nf4", "MCPIPE_SHARDING": "all"},
            "MCPIPE_QUANTIZE=nf4 and MCPIPE_SHARDING=all exclude each other: .*; use MCPIPE_SHARDING=adapter",
        ),
        (
            {"MCPIPE_OPTIMIZER": "adamw8bit", "MCPIPE_SHARDING": "adapter"},
            "MCPIPE_OPTIMIZER=adamw8bit and MCPIPE_SHARDING=adapter exclude each other: .*; use MCPIPE_OPTIMIZER=adamw",
        ),
    ],
)
def test_what_bitsandbytes_cannot_is_refused_in_one_line(monkeypatch, environment, message):
    monkeypatch.setattr(runtime, "find_spec", lambda name: "installed")
    with pytest.raises(ValueError, match=message) as refused:
        runtime_from(environment)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("MCPIPE_QUANTIZE", "nf4"), ("MCPIPE_OPTIMIZER", "paged_adamw8bit")])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, name, value):
    monkeypatch.setattr(runtime, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"{name}={value} needs bitsandbytes, .*: pip install -e '.\[lowmem\]'"):
        runtime_from({name: value})


def test_other_trainings_refuse_a_base_that_they_would_not_round(generator):
    """Stage 3 and FocusDPO: nothing rounds their base, so that the variable would be ignored."""
    network = ReferenceFlux(generator.transformer, layout(generator, IMAGE_SIZE, REFERENCE_SIZE), 1.0)
    asked = replace(TrainingRuntime(), quantization="nf4")
    with pytest.raises(ValueError, match="MCPIPE_QUANTIZE=nf4 is for train_single and train_multi alone"):
        prepare(network, asked, torch.device("cpu"), bfloat16=False)
