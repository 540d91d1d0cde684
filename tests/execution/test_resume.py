"""Killed trainings: the next run ends with the bytes of a run that nobody disturbed."""

import numpy as np
import pytest
import torch
from rl_fixtures import BrightnessScorer, MemoryLog, learner_of, prompts_of
from training_fixtures import EXPERTS, MULTI, SINGLE, Killed, files_of

from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.rl import trainer as rl
from stages import s07_train_single, s08_train_multi


@pytest.mark.parametrize("stage", ["single", "multi"])
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(
    stage, encoded, short_stage_one, short_generator_folder, tmp_path, killed_at, monkeypatch
):
    def run(folder):
        if stage == "single":
            s07_train_single.run(encoded, short_generator_folder, folder, SINGLE)
        else:
            s08_train_multi.run(encoded, short_stage_one, short_generator_folder, folder, MULTI)

    killed_at(None)
    run(tmp_path / "undisturbed")
    batches, backward = [], torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, *some: (batches.append(1), backward(self, *some))[1])
    for last in (1, 3):
        out = tmp_path / str(last)
        killed_at(last)
        with pytest.raises(Killed):
            run(out)
        assert not out.exists(), "outputs appear whole or not at all"
        batches.clear()
        killed_at(None)
        run(out)
        assert len(batches) == SINGLE.num_steps - last, "steps that were taken are not taken again"
        assert files_of(out) == files_of(tmp_path / "undisturbed")
        assert not list(tmp_path.rglob("training.pt"))


def test_killed_reinforcement_goes_on_after_the_last_whole_iteration(
    short_generator_folder, people, tmp_path, killed_at
):
    spec = AdapterSpec(rank=4, experts=EXPERTS, image_size=32, reference_size=16)

    def run(folder):
        pipeline = load_generator(short_generator_folder)
        add_adapter(pipeline.transformer, spec, 0)
        network = ReferenceFlux(pipeline.transformer, layout(pipeline, 32, 16), 3.5)
        learner, report = learner_of(pipeline, network, BrightnessScorer(), num_iterations=3)
        seen = []
        facts = rl.train_rl(
            learner,
            prompts_of(people),
            lambda step, values: seen.append((step, values)),
            Checkpoint(folder),
            MemoryLog(),
        )
        weights = [p.detach().numpy().copy() for p in network.parameters() if p.requires_grad]
        return facts, seen, report.kept, weights

    killed_at(None)
    undisturbed = run(tmp_path / "undisturbed")
    killed_at(3)
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    killed_at(None)
    again = run(tmp_path / "killed")
    assert again[:3] == undisturbed[:3]
    assert all(np.array_equal(first, second) for first, second in zip(again[3], undisturbed[3], strict=True))


def test_a_checkpoint_of_another_network_or_damaged_is_named(tmp_path, killed_at):
    weight = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(weight.parameters())

    class Position:
        can_resume = True

        def state_dict(self):
            return {"steps": 1}

        def load_state_dict(self, state_dict):
            assert state_dict == {"steps": 1}

    killed_at(None)
    Checkpoint(tmp_path).after(weight, optimizer, Position(), [{"loss": 1.0}])
    assert Checkpoint(tmp_path).read(weight, optimizer, Position()) == [{"loss": 1.0}]
    other = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"training.pt is damaged .*delete it"):
        Checkpoint(tmp_path).read(other, torch.optim.AdamW(other.parameters()), Position())
    (tmp_path / "training.pt").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"training.pt is damaged .*delete it"):
        Checkpoint(tmp_path).read(weight, optimizer, Position())
