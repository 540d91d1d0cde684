"""Whole configurations: what Hydra composes for DVC, and what the verbs of mcpipe read."""

import inspect
from importlib import import_module
from math import comb

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from hydra.core.global_hydra import GlobalHydra
from imports import ROOT

from mcpipe.cli.settings import read_content
from mcpipe.core.params import params_of, parse_yaml
from mcpipe.steps.generate import GenerateParams
from mcpipe.train.rl.params import TrainRLParams
from stages import STAGES


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """What ``dvc exp run -S ...`` would write into params.yaml."""
    monkeypatch.chdir(ROOT)
    # sam2 takes Hydra for the whole process as soon as it is imported, which another test may have done before.
    monkeypatch.setattr(GlobalHydra.instance(), "hydra", None)

    def compose(*overrides):
        compose_and_dump(str(tmp_path / "params.yaml"), str(ROOT / "conf"), None, "config", str(ROOT), list(overrides))
        return yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))

    return compose


def test_tiny_is_params_yaml_itself(composed):
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert composed() == composed("scale=tiny") == settings
    assert read_content(ROOT / "params.yaml", "tiny", []) == settings


def test_dvc_and_the_verbs_see_the_same_paper_configuration(composed):
    changes = ["train_multi.idar.weight=0.1", "generate.sample.num_steps=7"]
    assert composed("scale=paper", *changes) == read_content(ROOT / "params.yaml", "paper", changes)


def test_dvc_and_the_verbs_see_the_same_recipe(composed):
    assert composed("scale=paper", "recipe=psr") == read_content(ROOT / "params.yaml", "paper+psr", [])


def test_the_recipe_of_psr_holds_its_numbers():
    content = read_content(ROOT / "params.yaml", "paper+psr", [])
    params = params_of(content, "train_rl", TrainRLParams)
    assert params.rewards.weights == {"text": 0.0, "aesthetic": 0.2, "identity": 0.4, "semantic": 0.4}
    assert (params.rewards.matching, params.rank, params.update.ratio) == ("by_name", 64, "step")
    assert (params.sampling.variant, params.sampling.group_size, params.sampling.num_steps) == ("flow_grpo", 6, 28)
    assert {params.window(iteration) for iteration in range(params.num_iterations)} == {range(27)}, "all but the last"
    assert (content["train_multi"]["learning_rate"], params.update.learning_rate) == (1e-4, 1e-5)
    assert (content["train_single"]["positions"], content["train_multi"]["experts"]) == ("frame", None)


@pytest.mark.parametrize("configuration", ["paper", "paper+psr"])
def test_every_stage_accepts_the_configurations(configuration):
    content = read_content(ROOT / "params.yaml", configuration, [])
    for name, module in STAGES.items():
        run = import_module(f"stages.{module}").run
        params_of(content, name, inspect.get_annotations(run, eval_str=True)["params"])
    assert not [path for path in content["models"].values() if path.startswith("zoo/")], "no puppets among the weights"


def test_the_paper_configuration_holds_the_numbers_of_appendix_b():
    content = read_content(ROOT / "params.yaml", "paper", [])
    single, multi, rl, split = (
        content["train_single"], content["train_multi"], content["train_rl"], content["pairs"]["split"],
    )  # fmt: skip
    assert (single["num_steps"], single["batch_size"], single["learning_rate"], single["rank"]) == (
        40000,
        48,
        3e-5,
        512,
    )
    assert (multi["num_steps"], multi["batch_size"], multi["learning_rate"]) == (25000, 32, 1e-5)
    assert (multi["idar"]["weight"], multi["experts"]["num_experts"], multi["experts"]["top_k"]) == (0.3, 4, 1)
    assert single["weight_decay"] == multi["weight_decay"] == 0.01
    assert (content["samples"]["image_size"], content["samples"]["reference_size"]) == (512, 320)
    assert (rl["num_iterations"], rl["prompts_per_iteration"], content["rl_sampling"]["num_steps"]) == (300, 16, 16)
    assert [content["rl_sampling"][name] for name in ("window_size", "move_every", "stride")] == [2, 50, 1]
    assert [rl["rewards"][name] for name in ("text", "aesthetic", "identity")] == [1.4, 0.7, 0.5]
    assert split["num_bench"] + split["num_rl"] == comb(160, 2) == 12720


@pytest.mark.parametrize("configuration", ["tiny", "paper"])
def test_stage_three_and_the_benchmark_draw_with_one_shift_and_one_guidance(configuration):
    changes = ["generate.sample.shift=2.5", "generate.sample.guidance=1.5"]
    content = read_content(ROOT / "params.yaml", configuration, changes)
    reinforced, drawn = params_of(content, "train_rl", TrainRLParams), params_of(content, "generate", GenerateParams)
    assert (reinforced.shift, reinforced.guidance) == (drawn.sample.shift, drawn.sample.guidance) == (2.5, 1.5)
    assert not {"shift", "guidance"} & content["rl_sampling"].keys()


def test_every_number_of_a_configuration_says_where_it_comes_from():
    for file in sorted((ROOT / "conf").glob("*/*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.startswith("  ") and ":" in line and not line.strip().startswith("#") and not line.endswith(":"):
                assert lines[number - 1].strip().startswith("#"), f"{file}:{number + 1} has no comment"


@pytest.mark.parametrize(
    ("configuration", "change", "error", "reason"),
    [
        ("huge", None, FileNotFoundError, "there are: paper, psr, tiny"),
        (None, "train_multi.idar.wieght=1", ValueError, "there is no setting train_multi.idar.wieght"),
        (None, "train_multi", ValueError, "should be SECTION.KEY=VALUE"),
        (None, "models.pose=[", ValueError, "-S models.pose="),
    ],
)
def test_a_configuration_or_change_that_names_nothing_is_refused(configuration, change, error, reason):
    with pytest.raises(error, match=reason.replace("[", r"\[")):
        read_content(ROOT / "params.yaml", configuration, [change] if change else [])


def test_small_numbers_are_numbers_as_dvc_writes_them():
    texts = {"a": "1e-05", "b": "-2E+3", "c": "1.5e-7", "d": "e5", "e": "1e"}
    values = parse_yaml("\n".join(f"{key}: {text}" for key, text in texts.items()))
    assert values == {"a": 1e-05, "b": -2000.0, "c": 1.5e-7, "d": "e5", "e": "1e"}
