"""Settings of reinforcement: where the window stands, and what is refused."""

import pytest
import torch
from rl_fixtures import RL, settings

from mcpipe.objectives.flow import schedule
from mcpipe.objectives.sde import step


def test_the_window_moves_and_never_holds_the_last_step():
    params = settings(num_iterations=9)
    assert [params.window(iteration) for iteration in (0, 1, 2, 8)] == [
        range(2), range(1, 3), range(2, 4), range(2, 4)
    ]  # fmt: skip


def test_fewer_steps_behind_the_window_lead_over_the_same_distance():
    full = settings(sampling={"num_steps": 10}).levels(0)
    few = settings(sampling={"num_steps": 10, "after_window": 0.4}).levels(0)
    torch.testing.assert_close(full, schedule(10, 3.0), atol=0, rtol=0)
    assert (len(few), few[-1]) == (2 + 4 + 1, 0)
    torch.testing.assert_close(few[:3], full[:3], atol=0, rtol=0)
    # Of eight steps that are left every second one is taken.
    torch.testing.assert_close(few[2:], full[2::2])
    # Behind the last place of the window there is one step, which is always taken.
    late = settings(sampling={"num_steps": 10, "after_window": 0.4}, num_iterations=20)
    torch.testing.assert_close(late.levels(19), full, atol=0, rtol=0)
    assert len(settings(sampling={"num_steps": 10, "after_window": 1e-9}).levels(0)) == 2 + 1 + 1


@pytest.mark.parametrize("shift", [0.1, 0.2, 0.3, 0.45])
def test_a_schedule_starts_from_pure_noise_at_every_shift(shift):
    assert schedule(16, shift)[0] == 1
    assert step(schedule(16, shift), 0, eta=0.7).std < 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sampling": {"window_size": 5}}, "cannot be stochastic"),
        ({"update": {"updates_per_rollout": 3}}, "does not divide group_size"),
        ({"sampling": {"samples_per_pass": 3}}, "does not divide the 2 samples"),
        ({"sampling": {"eta": 0.0}}, "greater than 0"),
        ({"sampling": {"after_window": 0.0}}, "greater than 0"),
        ({"sampling": {"variant": "cps", "eta": 1.5}}, "at most 1 for cps"),
        ({"guidance": float("inf")}, "finite number"),
        ({"rewards": {"text": 0.0, "aesthetic": 0.0, "identity": 0.0}}, "nothing is rewarded"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        settings(**change)
    assert settings().model_dump() == RL
