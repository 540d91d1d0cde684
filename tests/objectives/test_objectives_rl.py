"""Sampler steps, ratios, advantages and matching against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from closeness import close

from mcpipe.objectives.advantage import combined_advantage, group_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.objectives.grpo import clipped_steps, step_ratio
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.objectives.reward import identity_reward, match, matched_similarity
from mcpipe.objectives.sde import log_prob, step, window_start

SIGMAS = schedule(16, 3.0)


@pytest.mark.parametrize(
    ("index", "x_weight", "v_weight", "std"),
    [
        (0, 0.755, -1 / 46, 0.7),
        (1, 403 / 550, 1.245 * (-6 / 253), 0.7231355),
        (2, 0.86, 1.245 * (-2 / 77), 0.5169843),
        (3, 0.902, 1.245 * (-1 / 35), 0.4266146),
        (4, 1753 / 1900, 1.245 * (-3 / 95), 0.3731798),
    ],
)
def test_stochastic_steps_have_the_published_coefficients(index, x_weight, v_weight, std):
    coefficients = step(SIGMAS, index, 0.7)
    close([coefficients.x_weight, coefficients.v_weight, coefficients.std], [x_weight, v_weight, std])


def test_a_stochastic_step_of_a_worked_example():
    close(step(SIGMAS, 0, 0.7).mean(torch.ones(1, 1), torch.full((1, 1), 0.5)), [[0.7441304]])


@pytest.mark.parametrize("variant", ["flow_grpo", "dance_grpo", "cps"])
@pytest.mark.parametrize("index", range(16))
def test_without_noise_the_step_is_eulers(index, variant):
    coefficients = step(SIGMAS, index, 0.0, variant)
    close(
        [coefficients.x_weight, coefficients.v_weight, coefficients.std],
        [1, float(SIGMAS[index + 1] - SIGMAS[index]), 0],
    )


@pytest.mark.parametrize(
    ("index", "x_weight", "v_weight", "std"),
    [
        (0, 1 - 0.045 / 46, -1 / 46, 0.3 / math.sqrt(46)),
        (8, 1 - 0.06 * 0.05, -0.05 - 0.06 * 0.05 * 0.25, 0.3 * math.sqrt(0.05)),
    ],
)
def test_constant_noise_has_the_coefficients_of_dance_grpo(index, x_weight, v_weight, std):
    coefficients = step(SIGMAS, index, 0.3, "dance_grpo")
    close([coefficients.x_weight, coefficients.v_weight, coefficients.std], [x_weight, v_weight, std])


@pytest.mark.parametrize("index", range(15))
def test_coefficients_preserving_steps_keep_the_weights_of_picture_and_noise(index):
    """x = (1 - sigma) picture + sigma noise goes on to (1 - sigma') picture and to noise of spread sigma'."""
    sigma, following, coefficients = float(SIGMAS[index]), float(SIGMAS[index + 1]), step(SIGMAS, index, 0.8, "cps")
    velocity = {"picture": -1.0, "noise": 1.0}
    kept = {
        name: coefficients.x_weight * weight + coefficients.v_weight * velocity[name]
        for name, weight in (("picture", 1 - sigma), ("noise", sigma))
    }
    close([kept["picture"], math.hypot(kept["noise"], coefficients.std)], [1 - following, following])
    close(coefficients.std, following * math.sin(0.4 * math.pi))


@pytest.mark.parametrize("variant", ["flow_grpo", "dance_grpo", "cps"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_the_picture_stays_where_the_velocity_says_it_is(eta, variant):
    """With all data at 0 the velocity is x / sigma, and after any step the noise is still all there is."""
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index in range(15):
        sigma = float(SIGMAS[index])
        close(x - sigma * (x / sigma), [[0.0] * 5])
        x = step(SIGMAS, index, eta, variant).mean(x, x / sigma).double()


@pytest.mark.parametrize("variant", ["flow_grpo", "dance_grpo", "cps"])
def test_the_last_step_cannot_be_stochastic(variant):
    with pytest.raises(ValueError, match="last step"):
        step(SIGMAS, 15, 0.7, variant)


def test_log_probability_is_a_mean_over_dimensions():
    for shape in ((2, 3), (2, 7, 4)):
        mean = torch.zeros(shape)
        close(log_prob(mean + 0.7, mean, 0.7), [-0.5 - math.log(0.7) - 0.5 * math.log(2 * math.pi)] * 2)
    old, new = torch.zeros(1, 9), torch.full((1, 9), 0.01 * 0.7)
    x = torch.full((1, 9), 0.7)
    close(log_prob(x, new, 0.7) - log_prob(x, old, 0.7), [0.01 - 0.01**2 / 2])


def test_window_moves_after_every_fifty_iterations_and_stops():
    starts = [window_start(m, num_steps=16, window_size=2, move_every=50, stride=1) for m in range(1000)]
    assert [starts[m - 1] for m in (1, 50, 51, 300, 301)] == [0, 0, 1, 5, 6]
    assert starts.index(14) == 700
    assert max(starts) == 14
    each = [window_start(m, num_steps=16, window_size=2, move_every=1, stride=1) for m in range(20)]
    assert each == [min(m, 14) for m in range(20)]


def test_ratio_is_the_geometric_mean_over_steps():
    close(sequence_ratio(torch.tensor([[2e-4, -1e-4]]), torch.zeros(1, 2)), [math.exp(5e-5)], atol=1e-7)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [0.9995, 1.0, 1.0005])
def test_clipping_stops_the_gradient_only_where_the_step_went_far_enough(advantage, ratio):
    s = torch.tensor([ratio], requires_grad=True)
    objective = clipped_objective(s, torch.tensor([advantage]), 3e-4, 4e-4)
    objective.sum().backward()
    clipped = (advantage > 0 and ratio > 1 + 4e-4) or (advantage < 0 and ratio < 1 - 3e-4)
    assert s.grad.item() == (0 if clipped else advantage)
    if advantage < 0:
        close(objective.detach(), [{0.9995: -0.9997, 1.0: -1.0, 1.0005: -1.0005}[ratio]], atol=1e-6)


def test_gradient_reaches_every_step_of_a_trajectory_alike():
    logp = torch.zeros(1, 4, requires_grad=True)
    ratio = sequence_ratio(logp, torch.full((1, 4), 1e-5))
    clipped_objective(ratio, torch.tensor([2.0]), 0.1, 0.1).sum().backward()
    close(logp.grad, [[ratio.item() * 2 / 4] * 4])


def test_every_step_is_clipped_on_its_own_or_the_trajectory_as_a_whole():
    logp = torch.tensor([[2e-4, -1e-4]], dtype=torch.float64, requires_grad=True)
    old, advantage = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    sequence = clipped_objective(sequence_ratio(logp, old), advantage, 1e-4, 1e-4)
    each = clipped_steps(step_ratio(logp, old), advantage, 1e-4, 1e-4)
    close([sequence.item(), each.item()], [1.00005000125, 1.0000000025], atol=1e-11)
    gradients = [torch.autograd.grad(value.sum(), logp)[0][0].tolist() for value in (sequence, each)]
    assert [[slope > 0 for slope in gradient] for gradient in gradients] == [[True, True], [False, True]]


def test_over_one_step_both_objectives_are_one():
    logp = torch.tensor([[5e-4], [-5e-4], [5e-5]])
    old, advantages = torch.zeros(3, 1), torch.tensor([1.0, -1.0, 0.3])
    sequence = clipped_objective(sequence_ratio(logp, old), advantages, 1e-4, 2e-4)
    assert torch.equal(clipped_steps(step_ratio(logp, old), advantages, 1e-4, 2e-4), sequence)


def test_advantages_are_in_sample_standard_deviations():
    close(group_advantage(torch.tensor([1.0, 2.0, 3.0])), [-1.0, 0.0, 1.0])
    close(group_advantage(torch.full((5,), 0.1)), [0.0] * 5)
    alike = torch.tensor([0.24, 0.24 + 1.5e-8, 0.24 - 1.5e-8], dtype=torch.float64)
    close(group_advantage(alike), [0.0] * 3)  # what a judge says of one picture thrice


def test_adding_rewards_or_advantages_can_disagree_on_who_is_better():
    rewards = {
        "identity": torch.tensor([0.2, 0.8]),
        "text": torch.tensor([0.31, 0.30]),
        "aesthetic": torch.tensor([0.28, 0.27]),
    }
    weights = {"identity": 0.5, "text": 1.4, "aesthetic": 0.7}
    close(combined_advantage(rewards, weights, "reward", 5.0), [-0.7071068, 0.7071068], atol=1e-5)
    close(combined_advantage(rewards, weights, "advantage", 5.0), [0.4351426, -0.4351426], atol=1e-5)
    scaled = rewards | {"text": 100 * rewards["text"] + 7}
    close(combined_advantage(scaled, weights, "advantage", 5.0), [0.4351426, -0.4351426], atol=1e-5)
    close(combined_advantage(rewards, weights, "advantage", 0.1), [0.1, -0.1])


def test_rewards_need_weights_of_the_same_names():
    with pytest.raises(ValueError, match="text"):
        combined_advantage({"text": torch.zeros(2)}, {"identity": 1.0}, "advantage", 5.0)


@pytest.mark.parametrize(
    ("similarity", "hungarian", "contrastive", "row_max"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], 0.85, 0.35, 0.85),
        ([[0.6, 0.55], [0.5, 0.1]], 0.525, 0.0875, 0.55),
        ([[0.7], [0.6]], 0.35, 0.05, 0.65),
        ([[0.6, 0.1], [0.2, -0.5]], 0.30, 0.05, 0.40),
        ([[0.7, 0.7], [0.7, 0.7]], 0.7, 0.0, 0.7),
        ([[0.5, 0.4, 0.9], [0.3, 0.8, 0.85]], 0.85, -0.0583333, 0.875),
        ([[], []], 0.0, 0.0, 0.0),
    ],
)
def test_identity_rewards_of_worked_examples(similarity, hungarian, contrastive, row_max):
    cosines = np.array(similarity, np.float32)
    for matching, reward in (("hungarian", hungarian), ("contrastive", contrastive), ("row_max", row_max)):
        for order in (cosines, cosines[::-1], cosines[:, ::-1]):
            assert identity_reward(order, matching) == pytest.approx(reward, abs=1e-6)


def test_one_average_face_pays_less_where_a_face_is_matched_once():
    """Two strangers, and a picture with one face between them; and one with both of them, each of a lesser likeness."""
    people = np.eye(3, dtype=np.float32)[:2]
    between = people.sum(0, keepdims=True) / np.sqrt(2)
    honest = np.stack([[0.7, 0.0, np.sqrt(0.51)], [0.0, 0.7, np.sqrt(0.51)]]).astype(np.float32)
    paid = {
        matching: [identity_reward(people @ faces.T, matching) for faces in (between, honest)]
        for matching in ("hungarian", "row_max", "contrastive")
    }
    assert paid["hungarian"][0] == pytest.approx(paid["row_max"][0] / 2)
    assert paid["hungarian"][0] < paid["hungarian"][1]
    assert paid["row_max"][0] > paid["row_max"][1], "the hack wins where a face may be everybody"
    assert paid["contrastive"][0] == pytest.approx(0)


def test_a_missing_person_scores_zero():
    cosines = np.array([[0.2], [0.9]], np.float32)
    assert match(cosines) == [(1, 0)]
    np.testing.assert_allclose(matched_similarity(cosines), [0, 0.9])
