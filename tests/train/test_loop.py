"""The training loop on one process: accumulation, averages, previews, progress, and when it stops."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from training_fixtures import (
    ENCODE,
    EXPERTS,
    MULTI,
    SINGLE,
    Killed,
    Ones,
    divide_by_no_small_gradient,
    files_of,
    outcome,
)

from mcpipe.core import progress
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.schemas.training import EncodedSample
from mcpipe.core.shards import read_shards
from mcpipe.flux.adapters import AdapterSpec, add_adapter, trainable
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encode import encoded_sample
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.objectives.flow import flow_loss
from mcpipe.train import supervised
from mcpipe.train.loop.averaging import keep_average, take_average
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import Draws, Share, batch_at, read_encoded
from mcpipe.train.loop.fit import Engine, Losses, fit
from mcpipe.train.loop.runtime import make_accelerator, runtime_from
from mcpipe.train.multi import BalanceParams
from mcpipe.train.supervised import predicted
from stages import s06_encode, s07_train_single, s08_train_multi

SHORT = MULTI.model_copy(update={"num_steps": 2, "batch_size": 4})


@pytest.fixture(scope="module")
def learn(encoded, stage_one, generator_folder, tmp_path_factory):
    """Stage 2 with its environment; the folder of its output."""

    def run(monkeypatch, params=SHORT, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        folder = tmp_path_factory.mktemp("learn") / "train_multi"
        s08_train_multi.run(encoded, stage_one, generator_folder, folder, params)
        return folder

    return run


@pytest.fixture(scope="module")
def plain(learn):
    """What stage 2 learns with nothing set."""
    with pytest.MonkeyPatch.context() as patch:
        return learn(patch)


def test_gradients_of_parts_of_a_step_add_up_to_that_of_the_whole(learn, monkeypatch):
    """All but the balance over a batch, which is one over those samples that go through the network together."""
    divide_by_no_small_gradient(monkeypatch, supervised)
    by_sample = SHORT.model_copy(update={"balance": BalanceParams(weight=0.01, over="sample")})
    curves, weights = outcome(learn(monkeypatch, by_sample))
    parts, divided = outcome(learn(monkeypatch, by_sample, MCPIPE_ACCUMULATION_STEPS="4"))
    for name in ("flow", "attention", "attention_inside", "balance", "grad_norm"):
        np.testing.assert_allclose(parts[name], curves[name], rtol=1e-5, err_msg=name)
    for name in weights:
        np.testing.assert_allclose(divided[name], weights[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_gradient_checkpointing_changes_no_bit(learn, plain, monkeypatch):
    again = learn(monkeypatch, MCPIPE_GRADIENT_CHECKPOINTING="1")
    assert files_of(again) == files_of(plain)


def test_shares_of_processes_and_parts_are_the_whole_step_in_order():
    """What processes take together is what one process takes, so that what is reckoned over a batch is the same."""
    whole = list(range(24, 36))
    for num_processes, num_batches in ((1, 1), (2, 3), (3, 1), (1, 12)):
        shares = [Share(process, num_processes, num_batches).positions(2, 12) for process in range(num_processes)]
        together = [[place for positions in batch for place in positions] for batch in zip(*shares, strict=True)]
        assert [place for batch in together for place in batch] == whole
        assert together == [list(positions) for positions in Share(0, 1, num_batches).positions(2, 12)]
    with pytest.raises(ValueError, match="12 samples cannot be divided into 5 equal batches on each of 2 processes"):
        Share(0, 2, 5).positions(0, 12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MCPIPE_ACCUMULATION_STEPS", "0"),
        ("MCPIPE_ACCUMULATION_STEPS", "two"),
        ("MCPIPE_GRADIENT_CHECKPOINTING", "yes"),
        ("MCPIPE_OFFLOAD_SCORERS", "yes"),
        ("MCPIPE_SHARDING", "everything"),
    ],
)
def test_a_machine_that_means_nothing_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} should be .*{value}"):
        runtime_from({name: value})


def test_float16_is_refused_because_its_loss_would_have_to_be_scaled(monkeypatch):
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    with pytest.raises(ValueError, match="--mixed_precision fp16; use no or bf16"):
        make_accelerator()


def moved(generator, encoded, dtype):
    """How many entries of a fresh adapter two steps at the paper's learning rate change, on a bfloat16 base; 0-1."""
    generator.transformer.to(torch.bfloat16)
    add_adapter(generator.transformer, AdapterSpec(rank=4, experts=EXPERTS, image_size=32, reference_size=16), 0)
    weights = trainable(generator.transformer)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for weight in weights.values():
        weight.data = weight.data.to(dtype)
    data = read_encoded(encoded)
    network = ReferenceFlux(generator.transformer, layout(generator, 32, 16), 1.0)
    batch = batch_at(data, data.train, Draws(0, 2, 1.5, 0.0, one_reference=False), range(2), torch.device("cpu"))
    before = {name: weight.detach().clone() for name, weight in weights.items() if ".lora_A." in name}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-5)
    for _ in range(2):  # at first, B = 0 keeps A still
        flow_loss(predicted(network, batch), batch.clean, batch.noise).backward()
        optimizer.step()
    return np.mean([(before[name] != weights[name]).float().mean().item() for name in before])


def test_adapters_on_a_bfloat16_base_are_float32_or_they_would_not_move(generator, encoded, generator_folder):
    assert moved(generator, encoded, torch.float32) > 0.95
    assert moved(load_generator(generator_folder), encoded, torch.bfloat16) < 0.05


def test_numbers_of_some_samples_are_means_over_those_alone():
    weight = torch.nn.Linear(1, 1)
    engine = Engine(Accelerator(), weight, torch.optim.SGD(weight.parameters()), 1.0)
    parts = [{"all": 1.0, "some": 2.0, "none": float("nan")}, {"all": 3.0, "some": 6.0, "none": float("nan")}]
    counts = [{"some": 3, "none": 0}, {"some": 1, "none": 0}]
    assert engine.weighted_means(parts, counts) == {"all": 2.0, "some": 3.0}


def fitted(folder, losses, num=6, decay=0.0):
    torch.manual_seed(0)
    weight = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(weight.parameters(), lr=0.1)
    if decay:
        keep_average(optimizer, decay)
    seen = []
    engine = Engine(Accelerator(), weight, optimizer, 1.0)
    fit(
        engine,
        Ones(num),
        lambda batch: engine.backward(losses(weight, batch)),
        lambda *_: seen.append(weight.weight.item()),
        Checkpoint(folder),
    )
    return weight, optimizer, seen


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(tmp_path):
    weights_seen = []

    def losses(weight, batch):
        weights_seen.append(weight.weight)
        return Losses({"flow": (weight(batch) * 0).abs().sqrt().sum()})

    with pytest.raises(FloatingPointError, match=r"the gradient is not finite at step 0.*'flow': 0\.0"):
        fitted(tmp_path, losses)
    assert torch.isfinite(weights_seen[0]).all()


def test_the_moving_average_is_that_of_the_weights_after_each_step(tmp_path):
    weight, optimizer, seen = fitted(
        tmp_path, lambda weight, batch: Losses({"flow": weight(batch).square().sum()}), decay=0.5
    )
    average = seen[0]
    for value in seen[1:]:
        average = 0.5 * average + 0.5 * value
    assert weight.weight.item() == seen[-1]
    take_average(optimizer)
    assert weight.weight.item() == pytest.approx(average, rel=1e-6)
    assert abs(average - seen[-1]) > 1e-3


def test_an_averaged_run_with_pictures_goes_on_exactly_where_it_was_killed(
    encoded, generator_folder, tmp_path, killed_at
):
    changes = {"ema_decay": 0.9, "pictures_every": 2}
    params = SINGLE.model_copy(update=changes)
    killed_at(None)
    s07_train_single.run(encoded, generator_folder, tmp_path / "undisturbed", params)
    whole = files_of(tmp_path / "undisturbed")
    pictures = [name for name in whole if name.startswith("pictures/")]
    assert len(pictures) == 2 * 2, "two held-out samples, after two and after four steps"
    assert len({whole[name] for name in pictures}) == len(pictures)
    killed_at(3)
    with pytest.raises(Killed):
        s07_train_single.run(encoded, generator_folder, tmp_path / "out", params)
    killed_at(None)
    s07_train_single.run(encoded, generator_folder, tmp_path / "out", params)
    assert files_of(tmp_path / "out") == whole


def test_progress_tells_the_terms_of_the_loss_the_rate_and_the_time_left(
    encoded, generator_folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with caplog.at_level(logging.INFO, logger="mcpipe.core.progress"):
        s07_train_single.run(encoded, generator_folder, tmp_path / "out", SINGLE.model_copy(update={"num_steps": 2}))
    lines = [record.getMessage() for record in caplog.records if "training steps" in record.getMessage()]
    assert len(lines) == 2
    assert r"training steps: 2/2, " in lines[-1]
    assert "/s, 0 s left; flow " in lines[-1]
    assert "grad_norm " in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7380, "2 h 3 min"), (200_000, "55 h 33 min")],
)
def test_durations_are_told_in_two_units(seconds, text):
    assert progress.duration(seconds) == text


def test_text_embeddings_can_be_left_out_of_the_cache(samples, encoded, generator_folder, stage_one, tmp_path):
    slim = tmp_path / "slim" / "encode"
    s06_encode.run(samples, generator_folder, slim, ENCODE.model_copy(update={"cache_texts": False}))
    assert all(sample.prompt_embeds is sample.pooled is None for sample in read_shards(slim, EncodedSample))
    s07_train_single.run(slim, generator_folder, tmp_path / "out", SINGLE)
    assert files_of(tmp_path / "out") == files_of(stage_one), "embedded step by step, captions are the same"


def test_padding_is_cached_as_the_generator_reads_it(samples, generator):
    """FLUX attends to it, so that it has to be there, embedded by a T5 that attends to it, too."""
    length = generator.tokenizer_2.model_max_length
    caption = "a hat"
    encoded = encoded_sample(generator, replace(next(read_shards(samples, Sample)), caption=caption), ENCODE)
    ids = generator.tokenizer_2(caption, padding="max_length", max_length=length, return_tensors="pt").input_ids
    num_pads = int((ids == generator.tokenizer_2.pad_token_id).sum())
    assert num_pads >= 3
    embedding, pooled, _ = generator.encode_prompt(prompt=caption, prompt_2=None, max_sequence_length=length)
    np.testing.assert_array_equal(encoded.prompt_embeds, embedding[0].detach().numpy())
    np.testing.assert_array_equal(encoded.pooled, pooled[0].detach().numpy())
    np.testing.assert_array_equal(encoded.prompt_embeds, generator.text_encoder_2(ids)[0][0].detach().numpy())
    alone = generator.text_encoder_2(ids[:, : length - num_pads])[0][0].detach().numpy()
    assert np.abs(alone - encoded.prompt_embeds[: length - num_pads]).max() > 1e-3
