"""The three stages on a random tiny generator: what is trained on, what is minimised, what is left behind."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from flux_fixtures import make_samples

from mcpipe.flux.adapters import ExpertParams, load_adapter, read_spec
from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import encode_conditions, integrate
from mcpipe.flux.tokens import layout
from mcpipe.models.protocols import Faces
from mcpipe.objectives import sde
from mcpipe.objectives.flow import schedule
from mcpipe.report import Report, read_report
from mcpipe.train import rl
from mcpipe.train.batches import Draws, draw, read_encoded, sample_index
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.fit import Engine, Losses, fit
from mcpipe.train.multi import IdarParams, TrainMultiParams
from mcpipe.train.rewards import Judges
from mcpipe.train.rollout import Policy, rollout, window_logp
from mcpipe.train.single import TrainSingleParams
from stages import s06_encode, s07_train_single, s08_train_multi

SUPERVISED = {
    "seed": 0, "num_steps": 4, "batch_size": 2, "learning_rate": 1e-3, "weight_decay": 0.01, "max_grad_norm": 1.0,
    "shift": 1.5, "guidance": 1.0, "text_dropout": 0.1,
}  # fmt: skip
SINGLE = TrainSingleParams(**SUPERVISED, rank=4)
EXPERTS = ExpertParams(num_experts=4, top_k=1, router="st")
MULTI = TrainMultiParams(**SUPERVISED, idar=IdarParams(weight=0.3, norm="max"), experts=EXPERTS, balance_weight=0.01)
RL = {
    "seed": 0,
    "num_iterations": 2,
    "prompts_per_iteration": 1,
    "sampling": {
        "num_steps": 5, "shift": 3.0, "guidance": 3.5, "eta": 0.7, "group_size": 4, "window_size": 2,
        "move_every": 1, "stride": 1,
    },
    "update": {
        "samples_per_update": 2, "clip_low": 1e-4, "clip_high": 1e-4, "aggregate": "advantage", "max_advantage": 5.0,
        "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": 1.0,
    },
    "rewards": {"text": 1.4, "aesthetic": 0.7, "identity": 0.5},
    "faces": {"min_score": 0.5, "detection_size": 256},
}  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, generator_folder):
    """The output of ``encode`` for six noisy samples."""
    folder = tmp_path_factory.mktemp("encoded")
    make_samples(folder / "samples")
    params = EncodeParams(min_mask_fraction=0.5, records_per_shard=4)
    s06_encode.run(folder / "samples", generator_folder, folder / "encode", params)
    return folder / "encode"


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory, encoded, generator_folder):
    folder = tmp_path_factory.mktemp("one") / "train_single"
    s07_train_single.run(encoded, generator_folder, folder, SINGLE)
    return folder


def files_of(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


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
        for one, other in zip(
            draw(data, data.train, small, position), draw(data, data.train, large, position), strict=True
        ):
            if isinstance(one, torch.Tensor):
                assert torch.equal(one, other)
            else:
                assert one.key == other.key
                assert len(one.references) == 1


def test_encoded_masks_follow_the_faces(encoded):
    data = read_encoded(encoded)
    assert (len(data.train), len(data.val)) == (4, 2)
    masks = data.train[0].masks.unflatten(-1, (4, 4))
    assert masks.shape == (2, 4, 4)
    assert masks[0, :, :2].any()
    assert not masks[0, :, 2:].any()
    assert not (masks[0] & masks[1]).any()


class OneBatch:
    def batches(self):
        yield torch.ones(1, 1)

    def standing(self):
        return {}

    def resume(self, standing):
        raise AssertionError(f"there is no checkpoint, but {standing} was found")


def test_a_loss_that_is_not_finite_stops_with_every_term(tmp_path):
    weight = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)

    def losses(batch):
        return Losses({"flow": weight(batch).sum(), "attention": weight(batch).sum() * float("nan")})

    engine = Engine(Accelerator(), weight, optimizer, 1.0)
    with pytest.raises(FloatingPointError, match="not finite at step 0.*'flow'.*'attention': nan"):
        fit(engine, OneBatch(), losses, lambda *_: None, Checkpoint(tmp_path))


def test_stage_one_leaves_the_same_bytes_twice(encoded, generator_folder, stage_one, tmp_path):
    s07_train_single.run(encoded, generator_folder, tmp_path / "train_single", SINGLE)
    first, second = files_of(stage_one), files_of(tmp_path / "train_single")
    assert first.keys() == second.keys()
    assert {"adapter.json", "pytorch_lora_weights.safetensors", "report.json"} <= first.keys()
    assert any(name.endswith("flow.tsv") for name in first)
    assert [name for name in first if first[name] != second[name]] == []


def test_stage_two_adds_experts_attention_loss_and_maps(encoded, generator_folder, stage_one, tmp_path):
    s08_train_multi.run(encoded, stage_one, generator_folder, tmp_path / "multi", MULTI)
    assert read_spec(tmp_path / "multi").experts == EXPERTS
    facts = read_report(tmp_path / "multi")["facts"]
    assert {"flow", "attention", "balance"} <= set(facts["curves"])
    maps = {file.stem: np.load(file) for file in (tmp_path / "multi" / "attention").glob("*.npz")}
    assert len(maps) == 2
    for arrays in maps.values():
        assert arrays["before"].shape == arrays["after"].shape == arrays["masks"].shape == (2, 4, 4)
        np.testing.assert_allclose(arrays["after"].sum((1, 2)), 1, rtol=1e-5)
    assert (tmp_path / "multi" / "multicrafter_experts.safetensors").is_file()


def test_the_attention_loss_draws_attention_into_the_faces(encoded, generator_folder, stage_one, tmp_path):
    inside = {}
    for weight in (0.0, 5.0):
        changes = {"idar": IdarParams(weight=weight, norm="mass"), "num_steps": 30, "learning_rate": 5e-3}
        folder = tmp_path / str(weight)
        s08_train_multi.run(encoded, stage_one, generator_folder, folder, MULTI.model_copy(update=changes))
        arrays = [np.load(file) for file in (folder / "attention").glob("*.npz")]
        inside[weight] = np.mean(
            [(a["after"] * a["masks"]).sum((1, 2)) - (a["before"] * a["masks"]).sum((1, 2)) for a in arrays]
        )
    assert inside[5.0] > inside[0.0] + 0.05
    curves = read_report(tmp_path / "0.0")["facts"]["curves"]
    assert "attention" not in curves, "lambda = 0 leaves the loss out"


def test_an_adapter_of_another_size_is_refused(encoded, generator_folder, stage_one, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name, content in files_of(stage_one).items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    spec = json.loads((other / "adapter.json").read_text())
    (other / "adapter.json").write_text(json.dumps(spec | {"image_size": 64}))
    with pytest.raises(ValueError, match="trained for pictures of 64 px"):
        s08_train_multi.run(encoded, other, generator_folder, tmp_path / "out", MULTI)


@pytest.fixture
def policy():
    return Policy(schedule(6, 3.0), range(2, 4), eta=0.7, group_size=4, slice_size=2)


@pytest.fixture
def network(generator, stage_one):
    spec = load_adapter(generator, stage_one)
    return ReferenceFlux(generator.transformer, layout(generator, spec.image_size, spec.reference_size), 3.5)


def test_shared_prefix_equals_the_unshared_loop_and_saves_what_it_should(generator, network, people, policy):
    conditions = encode_conditions(generator, ["two people in a park"], people[:1])
    forwards: Counter[str] = Counter()
    trajectory = rollout(network, conditions, policy, torch.Generator().manual_seed(3), forwards)
    num_steps, start, group = 6, 2, 4
    assert forwards["rollout"] == (start + 1) + (num_steps - start - 1) * group
    random = torch.Generator().manual_seed(3)
    shape = (1, *network.state_shape)
    noise = torch.randn(shape, generator=random)
    draws = [torch.randn((group, *shape[1:]), generator=random) for _ in policy.window]
    for i in range(group):
        x = integrate(network, noise, policy.sigmas, range(start), conditions)
        for index, z in zip(policy.window, draws, strict=True):
            step = sde.step(policy.sigmas, index, policy.eta)
            with torch.no_grad():
                velocity = network(x, torch.full((1,), float(policy.sigmas[index])), conditions)
            x = step.mean(x, velocity) + step.std * z[i : i + 1]
        x = integrate(network, x, policy.sigmas, range(4, num_steps), conditions)
        torch.testing.assert_close(trajectory.final[i : i + 1], x, rtol=1e-3, atol=1e-4)
    assert len(trajectory.states[0]) == 1
    assert not torch.allclose(trajectory.states[1][0], trajectory.states[1][1])


def test_before_the_first_update_every_ratio_is_exactly_one(generator, network, people, policy):
    conditions = encode_conditions(generator, ["two people in a park"], people[:1])
    trajectory = rollout(network, conditions, policy, torch.Generator().manual_seed(3), Counter())
    for part in policy.slices():
        logp = window_logp(network, conditions, policy, trajectory, part, Counter())
        assert torch.equal(logp.detach(), trajectory.logp[part])
        assert logp.requires_grad


class Judge:
    """Likes pictures by their mean brightness; sees one face, of a fixed direction."""

    def __init__(self, fault=None):
        self.fault = fault

    def faces(self, picture):
        return Faces(np.zeros((1, 4)), np.ones(1), np.zeros((1, 5, 2)), np.eye(3)[:1])

    def pictures(self, pictures):
        return np.stack([[p.mean() / 255, 0.0, 0.0] for p in pictures])

    def texts(self, texts):
        return np.array([[1.0, 0.0, 0.0]] * len(texts))

    def scores(self, pictures, prompts):
        scores = np.array([picture.mean() / 255 for picture in pictures])
        return np.full(len(pictures), np.nan) if self.fault else scores


def learner_of(generator, network, judge, **changes):
    params = rl.TrainRLParams.model_validate(RL | changes)
    report = Report("train_rl")
    return rl.Learner(generator, network, Judges(judge, judge, judge), params, report), report


def prompts_of(people):
    return [rl.Prompt("a+b", "two people in a park", people[0], np.eye(3)[:2])]


def test_reinforcement_makes_what_is_rewarded_likelier(generator, network, people):
    learner, report = learner_of(generator, network, Judge())
    update = next(rl.Iterations(learner, prompts_of(people)).batches())
    group = update.groups[0]
    best, worst = int(group.advantages.argmax()), int(group.advantages.argmin())
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    before = group.trajectory.logp.mean(1)
    everyone = (
        rl.Update(update.groups, slice(0, 2), is_first=True),
        rl.Update(update.groups, slice(2, 4), is_first=True),
    )
    for part in everyone:
        learner.losses(network, part).terms["gspo"].backward()
    optimizer.step()
    parts = [
        window_logp(network, group.conditions, group.policy, group.trajectory, p, Counter())
        for p in group.policy.slices()
    ]
    change = (torch.cat(parts).mean(1) - before).detach()
    assert change[best] > change[worst]
    assert report.kept == ["00000-a+b"]


def test_a_whole_stage_of_reinforcement_counts_its_work(generator, network, people, tmp_path):
    learner, _ = learner_of(generator, network, Judge())
    seen = []
    facts = rl.train_rl(learner, prompts_of(people), lambda step, values: seen.append(values), Checkpoint(tmp_path))
    group, num_steps, slices = 4, 5, 2
    assert len(seen) == 2 * slices, "iterations x updates"
    rollouts = sum((start + 1) + (num_steps - start - 1) * group for start in (0, 1))
    updates = 2 * (slices * 1 + group)
    assert facts["forwards"] == {"rollout": rollouts, "update": updates}
    assert {"gspo", "ratio_deviation", "reward_text", "reward_aesthetic", "reward_identity"} <= set(seen[0])
    assert seen[0]["ratio_deviation"] == 0
    assert seen[1]["ratio_deviation"] > 0
    assert seen[0]["reward_identity"] == pytest.approx(0.5), "one of two people is found"


def test_a_group_that_a_judge_cannot_score_is_dropped_by_name(generator, network, people):
    learner, report = learner_of(generator, network, Judge(fault=True))
    assert list(rl.Iterations(learner, prompts_of(people)).batches()) == []
    assert {rejection["reason"] for rejection in report.rejections} == {"reward_not_finite"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_iterations": 9}, "cannot be stochastic"),
        ({"update": RL["update"] | {"samples_per_update": 3}}, "does not divide group_size"),
        ({"sampling": RL["sampling"] | {"eta": 0.0}}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        rl.TrainRLParams.model_validate(RL | change)
