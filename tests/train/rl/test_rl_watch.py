"""When a reinforcement is given up."""

import pytest
from rl_fixtures import settings

from mcpipe.train.rl.monitor import collapse


def summaries(identity, heldout, drift=0.0):
    return [
        {"reward_identity": reward, "heldout": other, "ratio_deviation": drift}
        for reward, other in zip(identity, heldout, strict=True)
    ]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([], None),
        (summaries([0.3], [0.3], drift=0.6), "ratio_drift: a ratio went 0.6 away from 1"),
        (summaries([0.3, 0.3, 0.5, 0.5], [0.3, 0.3, 0.5, 0.5]), None),
        (summaries([0.5, 0.5, 0.3, 0.3], [0.5, 0.5, 0.3, 0.3]), None),
        (summaries([0.3, 0.3, 0.5, 0.5], [0.3, 0.3, 0.27, 0.27]), None),
        (summaries([0.3, 0.3, 0.5, 0.5], [0.3, 0.3, 0.2, 0.2]), "reward_hack: the identity reward rose by 0.2 while"),
        (summaries([0.3, 0.5, 0.5], [0.3, 0.2, 0.2]), None),
    ],
)
def test_a_training_is_given_up_for_a_reason(history, reason):
    message = collapse(history, settings().watch)
    assert message is None if reason is None else message.startswith(reason)
