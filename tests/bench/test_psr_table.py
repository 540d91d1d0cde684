"""The table of the PSR branch, and what counts as a copy."""

import json

import numpy as np
import pytest

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.object_copies import copy_threshold, cutout_distance
from mcpipe.bench.psr_table import COPIES, THINGS, SeedsTable, with_copies

INTERVAL = IntervalParams(resamples=200, seed=0)
KEYS = {"a": ["x", "y"], "b": ["y", "z"], "c": ["x", "y", "z"]}


def rows(shift, **undefined):
    """Scores that rise from prompt to prompt, moved by ``shift``."""
    return {
        key: {"references": things} | dict.fromkeys(THINGS, 0.1 * place + shift) | undefined.get(key, {})
        for place, (key, things) in enumerate(KEYS.items())
    }


def means(first, second=(), metrics=THINGS):
    """Means of one arm, or of its difference to another one."""
    table = SeedsTable({"first": first, "second": second}, (), metrics, INTERVAL)
    return table.means("first", "second" if second else None)


def test_a_difference_is_taken_seed_by_seed_on_the_same_prompts():
    change = means([rows(0.3), rows(0.2)], [rows(0.1), rows(0.0)])
    assert vars(change["object_lift"]) == pytest.approx({"value": 0.2, "low": 0.2, "high": 0.2})


def test_what_was_not_observed_is_left_out_of_its_mean():
    observed = means([rows(0.0, a={"swap_rate": None})])
    assert observed["swap_rate"].value == pytest.approx(0.15)
    assert observed["clip_t"].value == pytest.approx(0.1)
    nothing = {key: {COPIES: None} for key in KEYS}
    assert COPIES not in means([rows(0.0, **nothing)])


@pytest.mark.parametrize("minus", [[{"d": rows(0.0)["a"]}], [rows(0.0), rows(0.1)]])
def test_arms_that_do_not_fit_are_not_compared(minus):
    with pytest.raises(ValueError, match="answer different prompts, or differ in number"):
        means([rows(0.0)], minus)


def test_the_table_has_arms_differences_and_numbers_of_subjects():
    table = SeedsTable({"sft": [rows(0.0)], "rl": [rows(0.1)]}, [("rl", "sft")], THINGS, INTERVAL)
    lines = table.as_lines()
    (change,) = [line for line in lines if line.startswith("rl - sft")]
    assert change.count("+0.100 [+0.100, +0.100]") == len(THINGS)
    assert any("subjects" in line for line in lines)
    content = table.as_json()
    assert content["differences"]["rl - sft"]["dino_i"][0] == pytest.approx(0.1)
    assert content["by_number"]["sft"]["3"] == {"num_images": 1} | dict.fromkeys(THINGS, pytest.approx(0.2))


def test_copies_of_other_prompts_are_noticed(tmp_path):
    with pytest.raises(FileNotFoundError, match="has the stage copying run for this arm"):
        with_copies(rows(0.0), tmp_path)
    file = tmp_path / "copies.json"
    file.write_text(json.dumps({COPIES: {"a": 0.5, "b": None, "c": 0.0}}), encoding="utf-8")
    assert with_copies(rows(0.0), tmp_path)["a"][COPIES] == 0.5
    file.write_text(json.dumps({COPIES: {"a": 0.5}}), encoding="utf-8")
    with pytest.raises(ValueError, match="answer different prompts; run score and copying again"):
        with_copies(rows(0.0), tmp_path)


def test_a_copy_has_no_distance_and_a_negative_has_the_largest():
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    black = np.zeros_like(picture)
    assert cutout_distance(picture, picture) == 0
    assert cutout_distance(black, 255 - black) == pytest.approx(1)
    assert cutout_distance(picture, black) == cutout_distance(black, picture)


def test_the_threshold_leaves_the_rare_share_of_real_objects_below_it():
    real = np.random.default_rng(1).uniform(0.1, 0.4, 400)
    assert np.mean(real < copy_threshold(real, 0.05)) == pytest.approx(0.05, abs=0.005)
    with pytest.raises(ValueError, match="no object of a real target was located"):
        copy_threshold([], 0.05)
