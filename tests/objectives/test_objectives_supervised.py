"""Flow matching, attention regularisation and routing against numbers worked out by hand."""

import math

import pytest
import torch
from closeness import close

from mcpipe.objectives.column_mean import column_mean
from mcpipe.objectives.flow import flow_loss, noised, resolution_shift, schedule, shifted
from mcpipe.objectives.idar import attention_inside, attention_loss, dice_loss, peak_inside, soft_mask
from mcpipe.objectives.moe import balance_loss, choose, expert_chances, expert_shares

LOGITS = [[2.0, 1.0, 0.0, -1.0]]
CHANCES = [0.6439143, 0.2368828, 0.0871443, 0.0320586]


def test_velocity_points_from_picture_to_noise():
    clean, noise, t = torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 4.0), torch.tensor([0.25])
    z, v = noised(clean, noise, t), noise - clean
    assert z.item() == 2.5
    assert (z - t * v).item() == 2
    assert (z + (1 - t) * v).item() == 4
    assert flow_loss(v, clean, noise).item() == 0
    assert flow_loss(clean - noise, clean, noise).item() == 16


def test_schedule_is_the_published_one():
    fractions = [1, 45 / 46, 21 / 22, 13 / 14, 9 / 10, 33 / 38, 5 / 6, 27 / 34, 3 / 4, 7 / 10, 9 / 14, 15 / 26]
    close(schedule(16, 3.0), [*fractions, 1 / 2, 9 / 22, 3 / 10, 1 / 6, 0])
    close(schedule(4, 1.0), [1, 0.75, 0.5, 0.25, 0])
    close(shifted(torch.tensor([0.0, 0.5, 1.0]), 3.0), [0, 0.75, 1])


def test_shift_grows_with_the_picture():
    for tokens, mu in ((16, 0.459375), (256, 0.5), (1024, 0.63), (4096, 1.15)):
        assert math.log(resolution_shift(tokens)) == pytest.approx(mu)


def one_head(logits):
    """Queries and keys of width 1 with these dot products: keys 1, 0, ... would need width; use an identity instead."""
    logits = torch.tensor(logits, dtype=torch.float32)
    width = logits.shape[1]
    return logits[None, :, None] * math.sqrt(width), torch.eye(width)[None, :, None]


def test_attention_is_a_softmax_over_the_pictures_tokens():
    close(column_mean(*one_head([[0.0, math.log(3)]]), [1]), [[[0.25, 0.75]]])
    close(column_mean(*one_head([[0.0, math.log(3)], [math.log(3), 0.0]]), [2]), [[[0.5, 0.5]]])
    close(column_mean(*one_head([[0.0, math.log(3)], [math.log(3), 0.0]]), [1, 1]), [[[0.25, 0.75], [0.75, 0.25]]])


@pytest.mark.parametrize(("backend", "chunk_bytes"), [("chunked", 1), ("chunked", 10**9), ("sdpa", 1)])
def test_streamed_attention_equals_the_naive_one_with_its_gradients(monkeypatch, backend, chunk_bytes):
    monkeypatch.setattr("mcpipe.objectives.column_mean.CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    sizes = [3, 5, 4]
    queries, keys = torch.randn(2, 12, 3, 8, requires_grad=True), torch.randn(2, 10, 3, 8, requires_grad=True)
    upstream = torch.randn(2, 3, 10)
    naive = torch.einsum("bihd,bkhd->bhik", queries, keys).div(8**0.5).softmax(-1).mean(1)
    naive = torch.stack([part.mean(1) for part in naive.split(sizes, 1)], 1)
    expected = torch.autograd.grad((naive * upstream).sum(), (queries, keys))
    means = column_mean(queries, keys, sizes, backend)
    torch.testing.assert_close(means, naive)
    torch.testing.assert_close(means.sum(-1), torch.ones(2, 3))
    for ours, theirs in zip(torch.autograd.grad((means * upstream).sum(), (queries, keys)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("backend", ["chunked", "sdpa"])
def test_gradients_of_streamed_attention_are_those_of_its_values(backend):
    torch.manual_seed(0)
    queries = 3 * torch.randn(1, 6, 2, 4, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(1, 5, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: column_mean(*inputs, [1, 3, 2], backend), (queries, keys))


@pytest.mark.parametrize("backend", ["chunked", "sdpa"])
def test_half_precision_costs_the_map_less_than_a_hundredth(backend):
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 32, 4, 16).bfloat16(), torch.randn(1, 24, 4, 16).bfloat16()
    exact = column_mean(queries.double(), keys.double(), [20, 12])
    means = column_mean(queries, keys, [20, 12], backend)
    assert means.dtype == torch.float32
    assert ((means - exact).norm() / exact.norm()).item() < 0.01


@pytest.mark.parametrize(
    ("attention", "losses"),
    [
        ([0.4, 0.3, 0.2, 0.1], {"raw": 0.533333, "max": 0.222222, "minmax": 0.166667, "mass": 0.3}),
        ([0.25, 0.25, 0.25, 0.25], {"raw": 0.666667, "max": 0.333333, "minmax": 1.0, "mass": 0.5}),
        ([0.5, 0.5, 0.0, 0.0], {"raw": 0.333333, "max": 0.0, "minmax": 0.0, "mass": 0.0}),
        ([0.0, 0.0, 0.5, 0.5], {"raw": 1.0, "max": 1.0, "minmax": 1.0, "mass": 1.0}),
        ([1.0, 0.0, 0.0, 0.0], {"raw": 0.333333, "max": 0.333333, "minmax": 0.333333, "mass": 0.0}),
    ],
)
def test_dice_of_worked_examples(attention, losses):
    attention, mask = torch.tensor([[attention]]), torch.tensor([[[True, True, False, False]]])
    for norm, loss in losses.items():
        close(dice_loss(soft_mask(attention, mask, norm), mask, eps=0.0), [[loss]])


def test_raw_maps_can_hardly_lower_the_loss_of_a_face_but_peaked_ones_can():
    mask = torch.arange(1024)[None, None] < 48
    inside = mask / 48
    uniform = torch.full((1, 1, 1024), 1 / 1024)
    close(dice_loss(soft_mask(inside, mask, "raw"), mask, 0.0), [[0.9591837]])
    close(dice_loss(soft_mask(uniform, mask, "raw"), mask, 0.0), [[0.9980867]])
    close(dice_loss(soft_mask(uniform, mask, "max"), mask, 0.0), [[0.9104478]])


def test_losses_of_subjects_add_up_and_an_empty_mask_has_no_say():
    attention = torch.rand(3, 2, 8).softmax(-1)
    masks = torch.rand(3, 2, 8) > 0.5
    masks[:, :, 0] = True
    alone = [attention_loss(attention[:, i : i + 1], masks[:, i : i + 1], "max") for i in range(2)]
    torch.testing.assert_close(attention_loss(attention, masks, "max"), alone[0] + alone[1])
    masks[:, 1] = False
    torch.testing.assert_close(attention_loss(attention, masks, "max"), alone[0])
    torch.testing.assert_close(
        soft_mask(3 * attention, masks, "max"), soft_mask(attention, masks, "max"), atol=1e-6, rtol=0
    )


def test_attention_scores_see_mass_and_peak():
    attention, masks = torch.tensor([[[0.1, 0.6, 0.3]]]), torch.tensor([[[True, False, True]]])
    close(attention_inside(attention, masks), [[0.4]])
    assert not peak_inside(attention, masks).item()


@pytest.mark.parametrize(
    ("router", "weight", "gradient"),
    [
        ("paper", 1.0, [0.0, 0.0, 0.0, 0.0]),
        ("renorm", 1.0, [0.0, 0.0, 0.0, 0.0]),
        ("st", 1.0, [0.3560857, -0.2368828, -0.0871443, -0.0320586]),
        ("switch", 0.6439143, [0.2292887, -0.1525322, -0.0561135, -0.0206430]),
    ],
)
def test_one_expert_per_token(router, weight, gradient):
    logits = torch.tensor(LOGITS, requires_grad=True)
    choice = choose(logits, 1, router)
    assert choice.experts.tolist() == [[0]]
    choice.weights[0, 0].backward()
    close(choice.weights.detach(), [[weight]])
    close(logits.grad, [gradient], atol=2e-7)


@pytest.mark.parametrize("router", ["paper", "renorm", "st"])
def test_two_experts_share_a_token(router):
    choice = choose(torch.tensor(LOGITS), 2, router)
    assert choice.experts.tolist() == [[0, 1]]
    close(choice.weights, [[0.7310586, 0.2689414]])


def test_switch_keeps_the_chances_of_two_experts():
    close(choose(torch.tensor(LOGITS), 2, "switch").weights, [CHANCES[:2]])


def balance(logits):
    return balance_loss(expert_shares(logits), expert_chances(logits))


def test_balance_is_one_when_even_and_larger_when_all_go_to_one():
    even = 5 * torch.eye(4)
    close(expert_shares(even), [0.25] * 4)
    close(balance(even), 1.0)
    close(balance(torch.tensor(LOGITS * 3)), 4 * CHANCES[0], atol=1e-6)
