"""Reinforcement learning on a random tiny generator: rollouts, shared passes, gradients, logs."""

from collections import Counter
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from rl_fixtures import BrightnessScorer, MemoryLog, learner_of, network_of, prompts_of, settings

from benchmarks.slow_forms import PeakBytes
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import encode_conditions
from mcpipe.objectives import sde
from mcpipe.objectives.flow import schedule
from mcpipe.objectives.grpo import clipped_steps, step_ratio
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.rl import trainer as rl
from mcpipe.train.rl.policy_gradient import Group, accumulate_gradient
from mcpipe.train.rl.reference import ReferencePolicy
from mcpipe.train.rl.rollout import Noise, Policy, rollout

NUM_STEPS, START, GROUP = 6, 2, 4
ADVANTAGES = torch.tensor([1.0, -0.5, 0.7, -1.2])


def policy_of(variant="flow_grpo", eta=0.7, pass_size=2):
    return Policy(schedule(NUM_STEPS, 3.0), range(START, START + 2), eta, variant, GROUP, pass_size)


@pytest.fixture
def network(generator):
    return network_of(generator)


@pytest.fixture
def conditions(generator, people):
    return encode_conditions(generator, ["two people in a park"], people[:1])


def naive(network, conditions, policy, noise):
    """Every picture on its own, from the first step on: its states in the window, and where it ends."""
    shape = network.state_shape
    draws = {index: noise.steps(index, GROUP, shape) for index in policy.window}
    states, finals = [], []
    for i in range(GROUP):
        x, mine = noise.initial(shape), []
        for index in range(len(policy.sigmas) - 1):
            step = policy.step(index) if index in policy.window else sde.step(policy.sigmas, index, 0.0)
            with torch.no_grad():
                velocity = network(x, torch.full((1,), float(policy.sigmas[index])), conditions)
            before, x = x, step.mean(x, velocity)
            if index in policy.window:
                x = x + step.std * draws[index][i : i + 1]
                mine.append((index, before, x))
        states.append(mine)
        finals.append(x)
    return states, torch.cat(finals)


def naive_logp(network, conditions, policy, states):
    """Log-probabilities with their graphs, one pass per picture and step."""
    logp = []
    for mine in states:
        for index, before, after in mine:
            step = policy.step(index)
            velocity = network(before, torch.full((1,), float(policy.sigmas[index])), conditions)
            logp.append(sde.log_prob(after, step.mean(before, velocity), step.std))
    return torch.cat(logp).reshape(len(states), -1)


def gradient_of(network, group, update, forwards, *, is_first):
    """Sums over all samples of a group, and the gradient alone that they leave behind."""
    network.zero_grad(set_to_none=True)
    sums = accumulate_gradient(network, group, range(GROUP), update, forwards, is_first=is_first)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradient = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    network.zero_grad(set_to_none=True)
    return sums, gradient


def distance(first, second):
    """Length of the difference of two gradients, over the length of the second."""
    first, second = (torch.cat([part.flatten() for part in gradient]) for gradient in (first, second))
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize(("variant", "eta"), [("flow_grpo", 0.7), ("dance_grpo", 0.3), ("cps", 0.8)])
def test_a_shared_rollout_equals_the_loop_over_pictures_and_saves_what_it_should(network, conditions, variant, eta):
    policy, forwards, sizes = policy_of(variant, eta), Counter(), []
    handle = network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    trajectory = rollout(network, conditions, policy, Noise(0, 3), forwards)
    handle.remove()
    assert forwards == {"rollout": (START + 1) + (NUM_STEPS - START - 1) * GROUP} == {"rollout": sum(sizes)}
    assert sizes == [1] * (START + 1) + [2, 2] + [GROUP] * (NUM_STEPS - START - 2)
    states, finals = naive(network, conditions, policy, Noise(0, 3))
    torch.testing.assert_close(trajectory.final, finals, rtol=1e-4, atol=1e-5)
    logp = naive_logp(network, conditions, policy, states)
    torch.testing.assert_close(trajectory.logp, logp, rtol=1e-4, atol=1e-5)
    assert len(trajectory.states[0]) == 1
    assert not torch.allclose(trajectory.states[1][0], trajectory.states[1][1])


def test_fewer_steps_behind_the_window_save_passes_and_change_nothing_in_it(network, conditions):
    trajectories, costs = [], []
    for part in (1.0, 0.5):
        params = settings(sampling={"num_steps": NUM_STEPS, "after_window": part})
        policy, forwards = replace(policy_of(), sigmas=params.levels(START)), Counter()
        assert params.window(START) == policy.window
        trajectories.append(rollout(network, conditions, policy, Noise(0, 3), forwards))
        costs.append(forwards["rollout"])
        torch.testing.assert_close(trajectories[-1].final, naive(network, conditions, policy, Noise(0, 3))[1])
    assert costs[0] - costs[1] == GROUP, "one of two steps is left out"
    assert torch.equal(trajectories[0].logp, trajectories[1].logp)
    assert all(map(torch.equal, trajectories[0].states, trajectories[1].states))
    assert not torch.allclose(trajectories[0].final, trajectories[1].final, atol=1e-3)


def test_what_runs_together_changes_no_draw_and_no_picture(network, conditions):
    together, *split = [
        rollout(network, conditions, policy_of(pass_size=size), Noise(0, 3), Counter()) for size in (4, 2, 1)
    ]
    for other in split:
        torch.testing.assert_close(other.final, together.final, rtol=1e-4, atol=1e-5)
        assert torch.equal(other.states[1], together.states[1]), "the first draw hangs on nothing else"
    draws = [Noise(0, 3).steps(index, GROUP, (5,)) for index in (0, 1)]
    assert torch.equal(Noise(0, 3).steps(0, 2, (5,)), draws[0][:2])
    every = torch.cat([Noise(0, 3).initial((5,)), Noise(0, 4).initial((5,)), Noise(1, 3).initial((5,)), *draws])
    assert len(every.unique(dim=0)) == len(every), "prompts, seeds, pictures and steps all have their own"


@pytest.mark.parametrize("ratio", ["sequence", "step"])
def test_gradients_are_those_of_the_naive_loop_shared_or_pass_by_pass(network, conditions, ratio):
    policy = policy_of()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    states, _ = naive(network, conditions, policy, Noise(0, 3))
    old = naive_logp(network, conditions, policy, states).detach()

    def reference(limit):
        logp = naive_logp(network, conditions, policy, states)
        if ratio == "sequence":
            value = clipped_objective(sequence_ratio(logp, old), ADVANTAGES, limit, limit).mean()
        else:
            value = clipped_steps(step_ratio(logp, old), ADVANTAGES, limit, limit).mean()
        return torch.autograd.grad(value, weights)

    def ways(limit):
        base = {"ratio": ratio, "clip_low": limit, "clip_high": limit}
        return [settings(update=base | {"gradient": gradient}).update for gradient in ("joint", "two_pass")]

    joint, two_pass = ways(1e-4)
    everyone, forwards = range(GROUP), Counter()
    trajectory = rollout(network, conditions, policy, Noise(0, 3), forwards, kept=everyone)
    group = Group(conditions, policy, trajectory, ADVANTAGES)
    shared, again, apart = (
        gradient_of(network, group, update, counts, is_first=True)
        for update, counts in ((joint, forwards), (joint, Counter()), (two_pass, Counter()))
    )
    assert (forwards["update"], forwards["gradient"]) == (0, 1 + GROUP), "the rollout's graph is the update's"
    expected = reference(1e-4)
    assert [distance(gradient, expected) < 1e-5 for _, gradient in (shared, again, apart)] == [True] * 3
    assert {ratio for sums, _ in (shared, again, apart) for ratio in sums.ratios} == {1.0}

    with torch.no_grad():
        for weight, slope in zip(weights, expected, strict=True):
            weight += 0.05 * slope / torch.cat([part.flatten() for part in expected]).norm()
    drifted = gradient_of(network, group, joint, Counter(), is_first=False)[0].ratios
    limit = float(np.median(np.abs(np.array(drifted) - 1)))
    later = [gradient_of(network, group, update, Counter(), is_first=False) for update in ways(limit)]
    assert later[0][0].ratios == later[1][0].ratios
    assert 0 < np.mean(later[0][0].clipped) < 1, "some are clipped, some are not"
    assert [distance(gradient, reference(limit)) < 1e-5 for _, gradient in later] == [True] * 2
    assert distance(later[1][1], later[0][1]) < 1e-6


@pytest.mark.parametrize("gradient", ["joint", "two_pass"])
def test_a_ratio_other_than_one_before_the_first_update_stops_the_run(network, conditions, gradient):
    policy = policy_of()
    trajectory = rollout(network, conditions, policy, Noise(0, 3), Counter())
    trajectory.logp[1, 1] += 1e-6
    update = settings(update={"gradient": gradient}).update
    with pytest.raises(ValueError, match="before the first update every ratio is 1, found .*different shapes"):
        gradient_of(network, Group(conditions, policy, trajectory, ADVANTAGES), update, Counter(), is_first=True)


def test_updates_need_memory_for_one_gradient(generator_folder, people):
    """Nothing of a gradient is buffered, copied or scaled apart: counted with an adapter that outweighs all else."""
    for gradient in ("joint", "two_pass"):
        generator = load_generator(generator_folder)
        learner, _ = learner_of(
            generator, network_of(generator, rank=768), BrightnessScorer(), num_iterations=1, prompts_per_iteration=2,
            sampling={"num_steps": 3, "group_size": 2, "samples_per_pass": 1},
            update={"gradient": gradient, "updates_per_rollout": 1}, watch={"pictures_every": 0},
        )  # fmt: skip
        size = sum(weight.nbytes for weight in learner.weights)
        with PeakBytes(learner.network, *learner.reference.weights) as memory:
            for update in rl.Iterations(learner, prompts_of(people), MemoryLog()):
                learner.accumulate(update)
                learner.network.zero_grad(set_to_none=True)
        assert size < memory.peak < 1.7 * size


def test_the_reference_takes_the_place_of_the_weights_and_leaves_no_trace(network, conditions):
    """In the same memory: at full size a second copy of the weights takes gigabytes."""
    reference = ReferencePolicy(network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight += 0.01
    before = [(weight.data_ptr(), weight.detach().clone()) for weight in weights]
    group = Group(
        conditions, policy_of(), rollout(network, conditions, policy_of(), Noise(0, 3), Counter()), ADVANTAGES
    )
    assert reference.divergence(network, group) == reference.divergence(network, group) > 0
    for weight, (place, value) in zip(weights, before, strict=True):
        assert weight.data_ptr() == place
        assert torch.equal(weight, value)


def run(learner, people, folder):
    seen, log = [], MemoryLog()
    facts = rl.train_rl(learner, prompts_of(people), lambda _, values: seen.append(values), Checkpoint(folder), log)
    return facts, seen, log


def test_a_whole_training_counts_its_work_and_encodes_nothing_on_its_way(
    generator, network, people, tmp_path, monkeypatch
):
    learner, report = learner_of(generator, network, BrightnessScorer(), update={"updates_per_rollout": 1})
    calls, began = [], []
    for owner, name in ((generator, "encode_prompt"), (generator.vae, "encode")):
        work = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, work=work, **k: (calls.append(len(began)), work(*a, **k))[1])
    draw = learner.iteration
    learner.iteration = lambda *some: (began.append(1), draw(*some))[1]
    facts, seen, log = run(learner, people, tmp_path)
    assert set(calls) == {0}, "encoders work before the first iteration only"
    group, num_steps, window = 4, 5, 2
    rollouts = sum((start + 1) + (num_steps - start - 1) * group for start in (0, 1))
    gradient = 2 * (1 + (window - 1) * group)
    watched = 2 * 1 + 3 * num_steps
    assert facts["forwards"] == {"gradient": gradient, "rollout": rollouts, "watch": watched}
    assert facts["stopped"] is None
    assert {
        "gspo", "ratio", "ratio_deviation", "clip_share", "advantage_spread", "router_busiest", "kl_to_start",
        "heldout", "reward_text", "reward_aesthetic", "reward_identity", "grad_norm",
    } <= set(seen[0])  # fmt: skip
    assert [values["kl_to_start"] > 0 for values in seen] == [False, True]
    assert sorted(log.previewed) == [0, 1, 2]
    assert not np.array_equal(log.previewed[0], log.previewed[2]), "the same prompts look different after training"
    assert [len(rows) for rows in log.logged.values()] == [group, group]
    means = np.mean([row.text for row in log.logged[0]])
    assert means == pytest.approx(seen[0]["reward_text"])
    assert sum(row.advantage for row in log.logged[0]) == pytest.approx(0, abs=1e-6)
    assert report.kept == [f"0000{row[0].iteration}-00000-{row[0].prompt}" for row in log.logged.values()]


def test_a_prompt_that_comes_twice_in_an_iteration_gives_groups_that_can_be_told_apart(
    generator, network, people, tmp_path
):
    learner, report = learner_of(generator, network, BrightnessScorer(), num_iterations=1, prompts_per_iteration=3)
    prompts = prompts_of(people)[:2]
    log = MemoryLog()
    rl.train_rl(learner, prompts, lambda *_: None, Checkpoint(tmp_path), log)
    rows = log.logged[0]
    assert len({row.prompt for row in rows}) == 2
    assert len({(row.place, row.picture) for row in rows}) == len(rows) == 3 * GROUP
    assert len(set(report.kept)) == 3


def test_compiled_blocks_are_reinforced_alike(short_generator_folder, people, tmp_path, monkeypatch):
    """Also with weights changed for others on the way, to tell how far the training has come."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks cannot be compiled
    ends = []
    for compiler in ("", "eager"):
        monkeypatch.setenv("MCPIPE_COMPILE", compiler)
        torch.compiler.reset()
        generator = load_generator(short_generator_folder)
        learner, _ = learner_of(
            generator, network_of(generator), BrightnessScorer(), num_iterations=1,
            sampling={"num_steps": 3, "group_size": 2, "samples_per_pass": 1},
        )  # fmt: skip
        run(learner, people, tmp_path / compiler)
        ends.append([weight.detach().clone() for weight in learner.weights])
    torch.compiler.reset()
    assert distance(*ends) < 1e-6


def test_a_network_that_is_no_longer_finite_says_so_before_judges_see_it(generator, network, people, tmp_path):
    judge = BrightnessScorer()
    learner, _ = learner_of(generator, network, judge)
    with torch.no_grad():
        learner.weights[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="iteration 0, prompt two: the network draws values that are not fin"):
        run(learner, people, tmp_path)


def test_later_updates_of_an_iteration_start_from_what_the_first_one_changed(generator, network, people, tmp_path):
    learner, _ = learner_of(generator, network, BrightnessScorer(), num_iterations=1)
    facts, seen, _ = run(learner, people, tmp_path)
    assert [values["ratio_deviation"] > 0 for values in seen] == [False, True]
    assert facts["forwards"]["update"] == 1 + 2
    assert facts["forwards"]["gradient"] == 2 * (1 + 2)


def test_both_ways_to_take_gradients_end_with_the_same_weights(generator_folder, people, tmp_path):
    ends = []
    for gradient in ("joint", "two_pass"):
        generator = load_generator(generator_folder)
        learner, _ = learner_of(
            generator, network_of(generator), BrightnessScorer(), num_iterations=1, update={"gradient": gradient}
        )
        before = [weight.detach().clone() for weight in learner.weights]
        run(learner, people, tmp_path / gradient)
        ends.append([after.detach() - start for after, start in zip(learner.weights, before, strict=True)])
    assert distance(*ends) < 1e-2


def test_the_result_can_be_the_average_of_the_weights_on_their_way(generator_folder, people, tmp_path):
    ends, path = {}, []
    for decay in (0.0, 0.75):
        generator = load_generator(generator_folder)
        learner, _ = learner_of(
            generator, network_of(generator), BrightnessScorer(), num_iterations=1, update={"ema_decay": decay}
        )
        accumulate = learner.accumulate

        def keep_weights(update, learner=learner, accumulate=accumulate):
            path.append([weight.detach().clone() for weight in learner.weights])
            return accumulate(update)

        learner.accumulate = keep_weights
        run(learner, people, tmp_path / str(decay))
        ends[decay] = [weight.detach() for weight in learner.weights]
    assert len(path) == 4, "two updates each"
    for average, after_first, last in zip(ends[0.75], path[1], ends[0.0], strict=True):
        torch.testing.assert_close(average, 0.75 * after_first + 0.25 * last)
    assert distance(ends[0.75], ends[0.0]) > 1e-5


def test_reinforcement_makes_what_is_rewarded_likelier(generator, network, people):
    learner, report = learner_of(generator, network, BrightnessScorer(), update={"updates_per_rollout": 1})
    update = next(iter(rl.Iterations(learner, prompts_of(people), MemoryLog())))
    group = update.groups[0]
    learner.accumulate(update)
    torch.optim.SGD(learner.weights, lr=1.0).step()
    after = torch.tensor(gradient_of(network, group, settings().update, Counter(), is_first=False)[0].ratios)
    assert after[group.advantages.argmax()] > after[group.advantages.argmin()]
    assert len(report.kept) == 1


@pytest.mark.parametrize(("fault", "reason"), [("nan", "aesthetic_not_finite"), ("crash", "text_failed")])
def test_a_group_that_a_judge_cannot_score_is_dropped_by_name(generator, network, people, tmp_path, fault, reason):
    learner, report = learner_of(generator, network, BrightnessScorer(fault))
    with pytest.raises(ValueError, match=f"no group of images could be scored: {reason}"):
        run(learner, people, tmp_path)
    assert {rejection["reason"] for rejection in report.rejections} == {reason}
    assert report.kept == []


def test_a_collapsed_training_stops_and_says_so(generator, network, people, tmp_path):
    learner, _ = learner_of(generator, network, BrightnessScorer(), num_iterations=4, watch={"max_ratio_drift": 1e-9})
    facts, seen, log = run(learner, people, tmp_path)
    assert len(seen) == 2, "one iteration of two updates"
    assert facts["stopped"]["iteration"] == 1
    assert "ratio_drift" in facts["stopped"]["reason"]
    assert list(log.logged) == [0]
    assert sorted(log.previewed) == [0, 1], "what it had come to is drawn"


def test_a_checkpoint_with_another_window_is_refused(generator, network, people):
    learner, _ = learner_of(generator, network, BrightnessScorer())
    iterations = rl.Iterations(learner, prompts_of(people), MemoryLog())
    state = iterations.state_dict()
    assert state["window"] == 0
    with pytest.raises(ValueError, match="stood at step 1, but is to be at 0"):
        iterations.load_state_dict(state | {"window": 1})


class SeenError(Exception):
    """Ends a rollout before it begins."""


def test_references_change_places_from_group_to_group_when_shuffled(generator, network, people, monkeypatch):
    seen = []

    def recorded(_network, conditions, *_arguments):
        seen.append(conditions.references)
        raise SeenError

    monkeypatch.setattr("mcpipe.train.rl.learner.rollout", recorded)
    prompt = prompts_of(people)[0]
    inputs = encode_conditions(generator, [prompt.text], [np.stack(prompt.references)])
    for shuffled, expected in ((False, {True}), (True, {True, False})):
        learner, _ = learner_of(generator, network, BrightnessScorer(), shuffle_references=shuffled)
        seen.clear()
        for number in range(12):
            with pytest.raises(SeenError):
                learner.iteration(number, [prompt], {prompt.key: inputs}, range(1))
        assert {torch.equal(references, inputs.references) for references in seen} == expected
        kept = (inputs.references, inputs.references.flip(1))
        assert all(any(torch.equal(references, kept_references) for kept_references in kept) for references in seen)
