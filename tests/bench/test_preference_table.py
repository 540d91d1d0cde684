"""The table of arms beside their start."""

import pytest

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.preference_table import METRICS, ArmRow, arm_row, as_text

INTERVAL = IntervalParams(resamples=200, seed=0)
KEYS = {"a+b": ["a", "b"], "b+c": ["b", "c"], "c+d": ["c", "d"]}


def rows(shift, **undefined):
    """Scores that rise from prompt to prompt, moved by ``shift``."""
    return {
        key: {"references": people} | dict.fromkeys(METRICS, 0.1 * place + shift) | undefined.get(key[0], {})
        for place, (key, people) in enumerate(KEYS.items())
    }


def test_an_arm_that_gains_the_same_everywhere_has_a_certain_change():
    row = arm_row("dpo", [rows(0.3), rows(0.1)], rows(0.0), INTERVAL)
    assert row.num_seeds == 2
    assert row.means["clip_t"].value == pytest.approx(0.3)
    change = row.changes["identity_lift"]
    assert change.value == pytest.approx(0.2)
    assert (change.low, change.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert row.means["clip_t"].high - row.means["clip_t"].low > change.high - change.low - 1e-9


def test_a_prompt_without_a_score_anywhere_is_left_out_everywhere():
    blank = {"a": {"own_minus_cross": None}}
    row = arm_row("dpo", [rows(0.1)], rows(0.0, **blank), INTERVAL)
    assert row.means["own_minus_cross"].value == pytest.approx(0.25)
    assert row.means["clip_t"].value == pytest.approx(0.2)
    nothing = {key: {"leak_rate": None} for key in "abc"}
    assert "leak_rate" not in arm_row("dpo", [rows(0.1, **nothing)], rows(0.0), INTERVAL).means


def test_different_prompts_cannot_be_compared():
    other = {"x+y": rows(0.0)["a+b"]}
    with pytest.raises(ValueError, match="dpo and the start answer different prompts"):
        arm_row("dpo", [other], rows(0.0), INTERVAL)


def test_the_table_shows_means_and_signed_changes():
    start = arm_row("train_multi", [rows(0.0)], rows(0.0), INTERVAL)
    arm = arm_row("focus_dpo", [rows(0.2)], rows(0.0), INTERVAL)
    text = as_text(ArmRow(start.name, 1, start.means, {}), [arm]).splitlines()
    assert len(text) == 4
    assert text[2].startswith("focus_dpo")
    assert text[3].startswith("against start")
    assert text[3].count("+0.200 [+0.200, +0.200]") == len(METRICS)
