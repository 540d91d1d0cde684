"""Where the attention loss acts, and from when on: against the loss of every sample by hand."""

from types import SimpleNamespace

import pytest
import torch
from training_fixtures import MULTI

from mcpipe.core.params import check_params
from mcpipe.objectives.idar import IdarScope, NoiseRange
from mcpipe.train.loop.data import Batch
from mcpipe.train.multi import multi_losses

PLAIN = MULTI.model_copy(update={"experts": None})
LEVELS = torch.tensor([0.25, 0.5, 0.8])
ATTENTION = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.2, 0.1]])[:, None]
"""Maps of one reference in three samples; its face covers the first two tokens of each."""


def scope(**changes):
    return IdarScope(**{"blocks": None, "noise": NoiseRange(min=0.0, max=1.0), "start": 0.0} | changes)


def attention_term(params, step=0):
    """The attention loss of a batch whose network predicts zeros and attends as `ATTENTION`."""
    masks = (torch.arange(4) < 2).expand(3, 1, 4)
    zeros = torch.zeros(3, 4, 2)
    batch = Batch(zeros, zeros, LEVELS, None, masks)
    capture = SimpleNamespace(mean=lambda: ATTENTION)
    return float(multi_losses(lambda *_: zeros, batch, params, capture, step).terms["attention"])


def by_hand(sample):
    """Dice loss of a sample's map, divided by its peak."""
    soft = [value / max(ATTENTION[sample, 0].tolist()) for value in ATTENTION[sample, 0].tolist()]
    return 1 - 2 * (soft[0] + soft[1]) / (sum(soft) + 2)


@pytest.mark.parametrize(
    ("low", "high", "samples"),
    [(0.0, 1.0, [0, 1, 2]), (0.5, 1.0, [1, 2]), (0.0, 0.5, [0, 1]), (0.6, 0.7, []), (0.8, 1.0, [2])],
)
def test_samples_of_other_noise_levels_add_nothing(low, high, samples):
    params = PLAIN.model_copy(update={"scope": scope(noise=NoiseRange(min=low, max=high))})
    expected = 0.3 * sum(map(by_hand, samples)) / 3
    assert attention_term(params) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.5, 2), (0.6, 3), (0.99, 4)])
def test_the_loss_begins_after_its_share_of_the_steps(start, first):
    params = PLAIN.model_copy(update={"scope": scope(start=start)})
    terms = [attention_term(params, step) for step in range(params.num_steps + 1)]
    whole = 0.3 * sum(map(by_hand, range(3))) / 3
    assert terms == pytest.approx([0.0 if step < first else whole for step in range(5)], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"noise": {"min": 0.6, "max": 0.5}}, "noise: Value error, min 0.6 is above max 0.5"),
        ({"noise": {"min": 0.0, "max": 1.1}}, "noise.max: Input should be less than or equal to 1"),
        ({"noise": {"min": -0.1, "max": 1.0}}, "noise.min: Input should be greater than or equal to 0"),
        ({"start": 1.0}, "start: Input should be less than 1"),
        ({"blocks": []}, "blocks: List should have at least 1 item"),
        ({"blocks": [-1]}, "blocks.0: Input should be greater than or equal to 0"),
    ],
)
def test_ranges_are_checked(changes, fault):
    content = {"blocks": None, "noise": {"min": 0.0, "max": 1.0}, "start": 0.0} | changes
    with pytest.raises(ValueError, match=rf"idar_scope\.{fault}"):
        check_params(content, IdarScope, "idar_scope")
