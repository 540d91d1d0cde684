"""Settings of reinforcement: where the window stands, and what is refused."""

import pytest
from rl_fixtures import RL, settings


def test_the_window_moves_and_never_holds_the_last_step():
    params = settings(num_iterations=9)
    assert [params.window(iteration) for iteration in (0, 1, 2, 8)] == [
        range(2), range(1, 3), range(2, 4), range(2, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sampling": {"window_size": 5}}, "cannot be stochastic"),
        ({"update": {"updates_per_rollout": 3}}, "does not divide group_size"),
        ({"sampling": {"samples_per_pass": 3}}, "does not divide the 2 samples"),
        ({"sampling": {"eta": 0.0}}, "greater than 0"),
        ({"sampling": {"variant": "cps", "eta": 1.5}}, "at most 1 for cps"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        settings(**change)
    assert settings().model_dump() == RL
