"""FocusDPO's masks and the preference losses against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from closeness import close

from mcpipe.objectives.dpo import (
    PairErrors,
    as_noise_errors,
    dpo_loss,
    implicit_reward,
    masked_error,
    patch_dpo_loss,
    scaled_rate,
    token_errors,
)
from mcpipe.objectives.flow import noised
from mcpipe.objectives.focus import (
    detail_mask,
    focus,
    match_scores,
    matched,
    patch_entropy,
    structure_mask,
)

TAU, GAMMA = 0.1, 0.3


def subject(size, missed, tokens=30):
    """Prior mask of the first tokens, and scores whose best ``size`` tokens leave ``missed`` of them out."""
    prior, scores = torch.zeros(1, 1, tokens, dtype=torch.bool), torch.zeros(1, 1, tokens)
    prior[..., :size] = True
    scores[..., missed : size + missed] = 1.0
    return prior, scores


def fused(size, missed, detail):
    prior, scores = subject(size, missed)
    return focus(structure_mask(scores, prior), detail, prior[:, 0], TAU, GAMMA)


def test_a_confused_subject_is_looked_at_where_it_is_confused():
    detail = torch.linspace(0, 1, 30)[None]
    mask, ratio = fused(4, 1, detail)
    close(ratio, [0.25])
    close(mask, [[1.0, *[0.0] * 29]])


def test_a_matched_subject_is_looked_at_where_it_is_detailed():
    detail = torch.linspace(0, 1, 30)[None]
    mask, ratio = fused(20, 1, detail)
    close(ratio, [0.05])
    levels = detail[0].double().tolist()
    expected = [0.3 + 0.7 * levels[0], *(0.7 * level for level in levels[1:20]), *[0.0] * 10]
    close(mask, [expected])


@pytest.mark.parametrize(("size", "missed"), [(10, 1), (20, 2)])
def test_a_ratio_of_exactly_tau_is_mixed(size, missed):
    mask, ratio = fused(size, missed, torch.full((1, 30), 0.5))
    close(ratio, [0.1])
    close(mask, [[*[0.65] * missed, *[0.35] * (size - missed), *[0.0] * (30 - size)]])


def test_a_perfect_match_leaves_detail_alone_and_flat_texture_leaves_nothing():
    prior, scores = subject(5, 0)
    structure = structure_mask(scores, prior)
    mask, ratio = focus(structure, torch.full((1, 30), 0.2), prior[:, 0], TAU, GAMMA)
    close(ratio, [0.0])
    close(mask, [[*[0.14] * 5, *[0.0] * 25]])
    assert not focus(structure, torch.zeros(1, 30), prior[:, 0], TAU, GAMMA).mask.any()


def test_the_best_tokens_are_as_many_as_the_subject_has_also_where_scores_are_equal():
    prior = torch.zeros(2, 3, 12, dtype=torch.bool)
    prior[0, 0, :5] = prior[0, 1, 3:4] = prior[1, 2, :12] = True
    generator = torch.Generator().manual_seed(0)
    for scores in (torch.zeros(2, 3, 12), torch.randn(2, 3, 12, generator=generator)):
        assert torch.equal(matched(scores, prior).sum(-1), prior.sum(-1))


def test_each_reference_has_its_own_mask_and_what_either_misses_counts():
    prior = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]]], dtype=torch.bool)
    swapped = prior.flip(1).float()
    assert structure_mask(swapped, prior).tolist() == [[True, True, True, True, False]]
    assert not structure_mask(prior.float(), prior).any()
    one_right = torch.stack([prior[:, 0].float(), swapped[:, 1]], 1)
    assert structure_mask(one_right, prior).tolist() == [[False, False, True, True, False]]


def test_cosine_ignores_the_length_of_tokens_and_the_printed_formula_prefers_short_ones():
    cls = torch.tensor([[[2.0, 0.0]]])
    tokens = torch.tensor([[[3.0, 4.0], [6.0, 8.0]]])
    close(match_scores(cls, tokens, "cosine"), [[[0.6, 0.6]]])
    close(match_scores(cls, tokens, "squared"), [[[6 / 4 / 25, 12 / 4 / 100]]])


def test_entropy_of_patches_in_bits():
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:8, 16:32] = 255
    picture[:, 32:] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    close(patch_entropy(picture, (1, 3)), [[0.0, 1.0, 8.0]])
    close(detail_mask(patch_entropy(picture, (1, 3))), [[0.0, 0.125, 1.0]])
    close(detail_mask(np.ones((1, 2), np.float32)), [[0.0, 0.0]])
    with pytest.raises(ValueError, match="16 x 48 px cannot be divided into 3 x 3"):
        patch_entropy(picture, (3, 3))


def errors(winner, winner_reference, loser, loser_reference):
    return PairErrors(*(torch.tensor([e]) for e in (winner, winner_reference, loser, loser_reference)))


def test_preference_loss():
    close(dpo_loss(implicit_reward(errors(0.7, 0.7, 0.3, 0.3), 1000.0)), [math.log(2)])
    margin = implicit_reward(errors(0.9, 1.0, 1.2, 1.1), 10.0)
    close(margin, [1.0])
    close(dpo_loss(margin), [0.3132617])
    close(implicit_reward(errors(1.2, 1.1, 0.9, 1.0), 10.0), [-1.0])


def test_the_weight_is_inside_the_square():
    some = torch.tensor([[4.0, 4.0]])
    close(masked_error(some, torch.tensor([[0.5, 0.5]]), "tokens"), [1.0])
    close(masked_error(some, torch.tensor([[1.0, 1.0]]), "tokens"), [4.0])
    close(masked_error(torch.tensor([[4.0, 8.0]]), torch.tensor([[0.5, 1.0]]), "mask"), [9 / 1.25])
    close(masked_error(some, torch.zeros(1, 2), "mask"), [0.0])
    velocity = torch.tensor([[[3.0]]], requires_grad=True)
    error = token_errors(velocity, torch.zeros(1, 1, 1), torch.tensor([[[1.0]]]))
    masked_error(error, torch.tensor([[0.5]]), "tokens").sum().backward()
    close(velocity.grad, [[[0.25 * 2 * 2]]])


def test_noise_and_velocity_errors_have_an_exact_relation():
    generator = torch.Generator().manual_seed(0)
    clean, noise, velocity = (torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    noisy = noised(clean, noise, t)
    noise_hat = noisy + (1 - t)[:, None, None] * velocity
    direct = (noise - noise_hat).square().mean(-1)
    close(as_noise_errors(token_errors(velocity, clean, noise), t), direct.tolist())
    close(as_noise_errors(torch.ones(1, 1), torch.tensor([0.25])), [[0.5625]])


def test_patch_dpo_copies_the_winner_where_the_loser_is_bad():
    winner, loser = torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    close(patch_dpo_loss(winner, loser, torch.tensor([[0.0, 1.0]])), [(1 + 7) / 2])
    close(patch_dpo_loss(winner, loser, torch.tensor([[0.25, 0.25]])), [(0.75 * 4 + 0.25 * 12) / 2])


def test_the_published_rate_is_one_before_scaling():
    assert scaled_rate(1e-8, 128, 1, 16) == pytest.approx(2.048e-5, abs=1e-12)
