"""The three stages on a random tiny generator: what is trained on, what is minimised, what is left behind."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from flux_fixtures import uno_weights
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from training_fixtures import ENCODE, EXPERTS, MULTI, SINGLE, Killed, Ones, files_of, outcome

from mcpipe.core.report import read_report
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.flux.adapters import read_spec
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import Draws, draw, read_encoded
from mcpipe.train.loop.fit import Engine, Losses, fit
from mcpipe.train.loop.order import sample_index
from mcpipe.train.multi import IdarParams, multi_spec
from stages import s06_encode, s07_train_single, s08_train_multi


def test_samples_come_in_a_new_order_every_epoch_that_depends_on_the_seed_alone():
    epochs = [[sample_index(7, 3, epoch * 7 + place) for place in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[1] == [sample_index(7, 3, 7 + place) for place in range(7)]
    assert epochs[0] != [sample_index(7, 4, place) for place in range(7)]


def test_draws_belong_to_a_position_not_to_a_batch(encoded):
    data = read_encoded(encoded)
    small, large = (Draws(1, size, 1.5, 0.5, one_reference=True) for size in (2, 4))
    for position in range(8):
        for small_part, large_part in zip(
            draw(data, data.train, small, position), draw(data, data.train, large, position), strict=True
        ):
            if isinstance(small_part, torch.Tensor):
                assert torch.equal(small_part, large_part)
            else:
                assert small_part.key == large_part.key
                assert len(small_part.references) == 1


def orders(data, samples, draws, total):
    """Whether the first reference of every draw is the first of its sample; masks must have moved with references."""
    first = []
    for position in range(total):
        drawn, *_ = draw(data, samples, draws, position)
        stored = samples[sample_index(len(samples), draws.seed, position)]
        order = [
            next(place for place, reference in enumerate(stored.references) if torch.equal(reference, drawn_reference))
            for drawn_reference in drawn.references
        ]
        assert sorted(order) == list(range(len(stored.references)))
        assert torch.equal(drawn.masks, stored.masks[order])
        first.append(order[0] == 0)
    return np.array(first)


def test_the_order_of_references_says_nothing_when_they_are_shuffled(encoded):
    """Swapping the references of every sample gives the same distribution of what a slot shows."""
    data = read_encoded(encoded)
    samples = [data.train[place] for place in range(len(data.train))]
    swapped = [replace(sample, references=sample.references.flip(0), masks=sample.masks.flip(0)) for sample in samples]
    fixed = Draws(5, 2, 1.5, 0.5, one_reference=False)
    shuffled = replace(fixed, shuffle_references=True)
    total = 400
    shares = [orders(data, some, shuffled, total).mean() for some in (samples, swapped)]
    assert all(abs(share - 0.5) < 4 * 0.5 / total**0.5 for share in shares)
    assert orders(data, samples, fixed, 40).all()
    assert np.array_equal(orders(data, samples, shuffled, 40), orders(data, samples, shuffled, 40))
    for position in range(10):
        plain, turned = (draw(data, samples, draws, position) for draws in (fixed, shuffled))
        assert torch.equal(plain[1], turned[1])
        assert plain[2] == turned[2]
        assert plain[0].text == turned[0].text or torch.equal(plain[0].text[0], turned[0].text[0])


def test_encoded_masks_follow_the_faces(encoded):
    data = read_encoded(encoded)
    assert (len(data.train), len(data.val)) == (4, 2)
    masks = data.train[0].masks.unflatten(-1, (4, 4))
    assert masks.shape == (2, 4, 4)
    assert masks[0, :, :2].any()
    assert not masks[0, :, 2:].any()
    assert not (masks[0] & masks[1]).any()


def test_a_loss_that_is_not_finite_stops_with_every_term(tmp_path):
    weight = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)

    def accumulate(batch):
        return engine.backward(Losses({"flow": weight(batch).sum(), "attention": weight(batch).sum() * float("nan")}))

    engine = Engine(Accelerator(), weight, optimizer, 1.0)
    with pytest.raises(FloatingPointError, match="not finite at step 0.*'flow'.*'attention': nan"):
        fit(engine, Ones(1), accumulate, lambda *_: None, Checkpoint(tmp_path))


def test_stage_one_leaves_the_same_bytes_twice(encoded, generator_folder, stage_one, tmp_path):
    s07_train_single.run(encoded, generator_folder, tmp_path / "train_single", SINGLE)
    first, second = files_of(stage_one), files_of(tmp_path / "train_single")
    assert first.keys() == second.keys()
    assert {"adapter.json", "pytorch_lora_weights.safetensors", "report.json"} <= first.keys()
    assert any(name.endswith("flow.tsv") for name in first)
    assert [name for name in first if first[name] != second[name]] == []


def test_stage_two_adds_experts_attention_loss_and_maps(encoded, generator_folder, stage_one, tmp_path):
    params = MULTI.model_copy(update={"shift": 2.25})
    s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "multi", params)
    assert read_spec(stage_one).shift == SINGLE.shift
    spec = read_spec(tmp_path / "multi")
    assert (spec.experts, spec.shift) == (EXPERTS, 2.25), "drawing goes on with the shift of the last training"
    facts = read_report(tmp_path / "multi")["facts"]
    assert {"flow", "attention", "balance"} <= set(facts["curves"])
    assert any(name.startswith("attention_peak_inside_t") for name in facts["curves"])
    assert set(facts["reference_gain"]["after"]) == {"right", "others", "swapped"}
    maps = {file.stem: load_arrays(file) for file in (tmp_path / "multi" / "attention").glob("*.safetensors")}
    assert len(maps) == 2
    for arrays in maps.values():
        assert arrays["before"].shape == arrays["after"].shape == arrays["masks"].shape == (2, 4, 4)
        np.testing.assert_allclose(arrays["after"].sum((1, 2)), 1, rtol=1e-5)
    assert (tmp_path / "multi" / "multicrafter_experts.safetensors").is_file()


def test_the_attention_loss_draws_attention_into_the_faces(encoded, generator_folder, stage_one, tmp_path):
    inside = {}
    for weight in (0.0, 5.0):
        changes = {
            "idar": IdarParams(weight=weight, norm="mass", direction="reference_to_image"),
            "num_steps": 30,
            "learning_rate": 5e-3,
        }
        folder = tmp_path / str(weight)
        s08_train_multi.run(encoded, stage_one, generator_folder, folder, MULTI.model_copy(update=changes))
        arrays = [load_arrays(file) for file in (folder / "attention").glob("*.safetensors")]
        inside[weight] = np.mean(
            [(a["after"] * a["masks"]).sum((1, 2)) - (a["before"] * a["masks"]).sum((1, 2)) for a in arrays]
        )
    assert inside[5.0] > inside[0.0] + 0.05
    curves = read_report(tmp_path / "0.0")["facts"]["curves"]
    assert "attention" not in curves, "lambda = 0 leaves the loss out"


def test_the_attention_loss_of_a_training_begins_at_its_step(encoded, generator_folder, stage_one, tmp_path, killed_at):
    params = MULTI.model_copy(update={"scope": MULTI.scope.model_copy(update={"start": 0.5, "blocks": [0]})})
    s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "multi", params)
    losses, _ = outcome(tmp_path / "multi")
    assert losses["attention"][:2] == [0, 0]
    assert min(losses["attention"][2:]) > 0
    assert len(losses["attention_inside"]) == 4, "watched from the first step on"
    killed_at(3)
    with pytest.raises(Killed):
        s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "again", params)
    killed_at(None)
    s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "again", params)
    assert files_of(tmp_path / "again") == files_of(tmp_path / "multi"), "steps of an earlier run count"


def test_a_block_that_the_generator_does_not_have_is_named(encoded, generator_folder, stage_one, tmp_path):
    params = MULTI.model_copy(update={"scope": MULTI.scope.model_copy(update={"blocks": [7]})})
    with pytest.raises(ValueError, match="there is no double block 7"):
        s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "multi", params)


def test_an_adapter_of_another_size_is_refused(encoded, generator_folder, stage_one, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name, content in files_of(stage_one).items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    spec = json.loads((other / "adapter.json").read_text(encoding="utf-8"))
    (other / "adapter.json").write_text(json.dumps(spec | {"image_size": 64}), encoding="utf-8")
    with pytest.raises(ValueError, match="trained for images of 64 px"):
        s08_train_multi.run(encoded, other, generator_folder, tmp_path / "out", MULTI)


def test_stage_one_goes_on_from_a_file_with_positions_that_stage_two_inherits(encoded, generator_folder, tmp_path):
    file = tmp_path / "dit_lora.safetensors"
    params = SINGLE.model_copy(update={"start": str(file), "positions": "frame", "num_steps": 1})
    with pytest.raises(FileNotFoundError, match=r"dit_lora\.safetensors"):
        s07_train_single.run(encoded, generator_folder, tmp_path / "train_single", params)
    save_file(uno_weights(rank=8), file)
    with pytest.raises(ValueError, match=r"dit_lora\.safetensors has rank 8; it cannot go on with rank 4"):
        s07_train_single.run(encoded, generator_folder, tmp_path / "train_single", params)
    weights = uno_weights()
    save_file(weights, file)
    s07_train_single.run(encoded, generator_folder, tmp_path / "train_single", params)
    before = weights["single_blocks.1.processor.proj_lora.down.weight"]
    after = load_file(tmp_path / "train_single" / "pytorch_lora_weights.safetensors")
    moved = after["transformer.single_transformer_blocks.1.proj_out.lora_A.weight"] - before
    assert 0 < moved.abs().max() < 2 * params.learning_rate, "one step away"
    spec = read_spec(tmp_path / "train_single")
    assert spec.positions == "frame"
    assert multi_spec(spec, read_encoded(encoded), MULTI).positions == "frame"


FAULTS = {
    "masks": lambda arrays: {name: array for name, array in arrays.items() if name != "masks"},
    r"masks' has 1 ": lambda arrays: arrays | {"masks": arrays["masks"][:1]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_samples_without_masks_or_with_other_numbers_of_them_are_named_with_their_file(
    fault, samples, encoded, generator_folder, tmp_path
):
    for source, target in ((samples, tmp_path / "samples"), (encoded, tmp_path / "encode")):
        records = list(read_shards(source))
        records[-2] = replace(records[-2], arrays=FAULTS[fault](records[-2].arrays))
        write_shards(records, target, 4)
    write_shards(read_shards(encoded / "empty"), tmp_path / "encode" / "empty", 1)
    place = rf"samples/shard-00001\.tar: sample {records[-2].key}: .*{fault}"
    with pytest.raises(ValueError, match=place):
        s06_encode.run(tmp_path / "samples", generator_folder, tmp_path / "out", ENCODE)
    place = rf"encode/shard-00001\.tar: encoded sample {records[-2].key}: .*{fault}"
    with pytest.raises(ValueError, match=place):
        list(read_encoded(tmp_path / "encode").train)
