"""Plans, intervals and the ablation's analysis."""

import csv
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from imports import ROOT
from record_fixtures import generated, pair_prompt, pool_face

from mcpipe.bench.intervals import Interval, IntervalParams, block_interval, observed_interval
from mcpipe.core.params import check_params, params_of, parse_yaml
from mcpipe.core.shards import write_shards
from mcpipe.report.ablation import Ablation, Change
from mcpipe.steps.generate import GenerateParams
from mcpipe.train.multi import TrainMultiParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.single import TrainSingleParams
from studies.ablation.analysis import AblationPlan, fact, own_less_cross, published_change
from studies.ablation.analysis import paths as analysed_paths
from studies.ablation.images import GAP_PX, PAIRS, TILE_PX, images, images_path
from studies.alignment.analysis import AlignmentPlan
from studies.blocks import sampled_units
from studies.plan import Experiment, StudyPlan, changed, experiments, read_plan
from studies.trials import Trial, scores_of, scores_path

INTERVAL = IntervalParams(resamples=400, seed=0)
MODELS = {
    "train_single": TrainSingleParams,
    "train_multi": TrainMultiParams,
    "train_rl": TrainRLParams,
    "generate": GenerateParams,
}
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def plan_of(study):
    model = {"ablation": AblationPlan, "alignment": AlignmentPlan}[study]
    return read_plan(ROOT / "studies" / study / "plan.yaml", model)


def test_every_experiment_has_a_name_of_its_own_and_settings_that_are_allowed():
    names = Counter()
    for study in ("ablation", "alignment"):
        plan = plan_of(study)
        prompts = changed(PARAMS, plan.settings)["pairs"]
        for experiment in experiments(plan):
            names[experiment.name] += 1
            content = changed(PARAMS, experiment.settings)
            for section, model in MODELS.items():
                params_of(content, section, model)
            assert content["pairs"] == prompts, "arms answer the same prompts"
            pairs = [override.split("=", 1) for override in experiment.overrides]
            assert {key: parse_yaml(value) for key, value in pairs} == experiment.settings, "as DVC takes them"
            assert experiment.difference(PARAMS, content) is None
            assert experiment.difference(PARAMS, PARAMS) is not None
    assert set(names.values()) == {1}
    assert len(names) == 5 * 3 + 3 * 3 * 3


@pytest.mark.parametrize("name", ["weights", "variants"])
def test_plans_of_one_seed_change_settings_that_are_allowed(name):
    plan = read_plan(ROOT / "studies" / "ablation" / f"{name}.yaml", AblationPlan)
    assert plan.name == name
    trained = []
    for experiment in experiments(plan):
        content = changed(PARAMS, experiment.settings)
        for section, model in MODELS.items():
            params_of(content, section, model)
        trained.append(params_of(content, "train_multi", TrainMultiParams))
    assert all(params.experts is None for params in trained)
    assert all(params not in trained[:place] for place, params in enumerate(trained))


def test_arms_differ_by_what_their_names_say():
    parts = {}
    for arm in plan_of("ablation").rows:
        weight = arm.settings["train_multi.idar.weight"]
        parts[arm.name] = (weight > 0, "train_multi.experts" not in arm.settings, arm.evaluated)
    assert parts == {
        "baseline": (False, False, "train_multi"),
        "control": (False, True, "train_multi"),
        "idar": (True, False, "train_multi"),
        "moe": (True, True, "train_multi"),
        "ippo": (True, True, "train_rl"),
    }
    plan = plan_of("alignment")
    rates = {arm.name: arm.settings.get("rl_update.learning_rate") for arm in plan.rows}
    assert rates == {"ippo": None, "grpo": None, "start": 1e-12}
    assert {arm.name: arm.settings["rl_update.ratio"] for arm in plan.rows} == {
        "ippo": "sequence", "grpo": "step", "start": "sequence"
    }  # fmt: skip
    noise = [each.settings["generate.seed"] for each in experiments(plan) if each.arm.name == "ippo"]
    assert noise == [1000 * number for number in range(9)], "no two drawings of an arm share noise"


def test_plans_that_contradict_themselves_are_refused():
    plan = plan_of("ablation").model_dump()
    control = {"name": "idar", "title": "", "of": "idar", "settings": {}}
    for change, complaint in (
        ({"comparisons": [["idar", "stranger"]]}, "a comparison names two of"),
        ({"controls": [control]}, "names of arms and controls are used once"),
        ({"controls": [control | {"name": "x", "of": "stranger"}]}, "controls of unknown arms"),
        ({"seeds": [1, 1]}, "seeds are used once"),
        ({"published": {"idar": "no such row"}}, "no such rows"),
        ({"drawings": 0}, "drawings"),
        ({"oracles": ["stranger"]}, "oracles of unknown arms"),
        ({"settings": {}}, "oracles need the control other_people"),
    ):
        with pytest.raises(ValueError, match=complaint):
            check_params(plan | change, AblationPlan)
    with pytest.raises(ValueError, match=r"the plan changes world.clips, which params.yaml does not have"):
        changed(PARAMS, {"world.clips": 3})


def test_a_control_is_its_arm_with_changes():
    plan = plan_of("ablation").model_dump(exclude={"diagnosis", "published", "num_shown", "oracles"})
    control = {"name": "others", "title": "t", "of": "moe", "settings": {"generate.seed": 7}}
    (made,) = [arm for arm in check_params(plan | {"controls": [control]}, StudyPlan).rows if arm.name == "others"]
    assert made.settings == {"train_multi.idar.weight": 0.03, "generate.seed": 7}
    assert made.evaluated == "train_multi"


def test_intervals_cover_trainings_prompts_and_people():
    random = np.random.default_rng(0)
    prompts = random.normal(size=(1, 40))
    alike = np.repeat(prompts, 3, axis=0)
    unlike = alike + np.array([[-1.0], [0.0], [1.0]])
    alone = sampled_units([str(i) for i in range(40)], "prompt")
    narrow, wide = (block_interval(block, alone, INTERVAL) for block in (alike, unlike))
    assert narrow.value == pytest.approx(wide.value)
    assert narrow.high - narrow.low == pytest.approx(4 * prompts.std() / np.sqrt(40), rel=0.15)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    people = random.normal(size=10)
    keys = [f"{i}+{j}" for i in range(10) for j in range(i)]
    block = np.array([[people[int(a)] + people[int(b)] for a, b in (key.split("+") for key in keys)]])
    by_prompt, by_person = (
        block_interval(block, sampled_units(keys, kind), INTERVAL) for kind in ("prompt", "identity")
    )
    assert by_person.value == by_prompt.value
    spread = by_person.high - by_person.low
    assert spread == pytest.approx(2 * 4 * people.std() / np.sqrt(10), rel=0.25), "as of ten people, not of 45 pairs"
    assert spread > 1.8 * (by_prompt.high - by_prompt.low)
    with pytest.raises(ValueError, match="not a number"):
        block_interval(np.array([[1.0, np.nan]]), sampled_units(["a", "b"], "prompt"), INTERVAL)


def test_means_are_over_what_was_observed():
    units = sampled_units(["a+b", "b+c", "c+d"], "identity")
    block = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 5.0]])
    assert observed_interval(block, units, INTERVAL).value == 3.0
    whole = np.random.default_rng(0).normal(size=(2, 3))
    assert observed_interval(whole, units, INTERVAL) == block_interval(whole, units, INTERVAL)
    with_unseen = np.concatenate([whole, np.full((2, 1), np.nan)], axis=1)
    assert observed_interval(with_unseen, [*units, ["a", "d"]], INTERVAL).value == pytest.approx(whole.mean())
    with pytest.raises(ValueError, match="nothing was observed"):
        observed_interval(np.full((1, 3), np.nan), units, INTERVAL)


def test_recorded_means_and_changes_follow_from_recorded_scores():
    for study, unit in {"ablation": "identity", "alignment": "prompt"}.items():
        folder = ROOT / "data" / study
        rows = list(csv.DictReader((folder / "scores.csv").open(encoding="utf-8")))
        recorded = json.loads((folder / f"{study}.json").read_text(encoding="utf-8"))
        prompts = list(dict.fromkeys(row["prompt"] for row in rows))
        units, interval = sampled_units(prompts, unit), IntervalParams(resamples=2000, seed=0)
        for change in recorded["changes"][:10]:
            before, after = (
                np.array([float(row[change["metric"]]) for row in rows if row["arm"] == change[arm]])
                for arm in ("before", "after")
            )
            mean = observed_interval((after - before).reshape(-1, len(prompts)), units, interval)
            for end, value in change["change"].items():
                assert getattr(mean, end) == pytest.approx(value, abs=2e-6)
    Ablation.model_validate_json((ROOT / "data" / "ablation" / "ablation.json").read_text(encoding="utf-8"))


def test_an_ordering_comes_out_only_beyond_doubt_and_says_why_not():
    for interval, published, verdict, reason in (
        (Interval(0.2, 0.1, 0.3), 0.01, "comes out", ""),
        (Interval(-0.2, -0.3, -0.1), 0.01, "reversed", ""),
        (Interval(0.1, -0.1, 0.3), 0.01, "undecided", "finer than what can be told apart here, 0.200"),
        (Interval(0.1, -0.1, 0.3), 0.35, "undecided", "ruled out"),
        (Interval(0.1, -0.1, 0.3), 0.25, "undecided", "are possible"),
        (Interval(0.2, 0.1, 0.3), None, "no published step", ""),
    ):
        change = Change("a", "b", "face_sim", interval, published)
        assert change.verdict == verdict
        assert reason in change.reason
        assert bool(reason) == bool(change.reason)
    rows = plan_of("ablation").published
    assert published_change(rows, "baseline", "idar", "face_sim") == 0.3509
    assert published_change(rows, "control", "idar", "face_sim") is None
    assert published_change(rows, "baseline", "idar", "detection_rate") is None


def test_figures_are_found_by_their_path_and_say_when_they_are_not_there():
    facts = {"held_out": {"after": {"0.0": {"inside": 0.1}, "0.5": {"inside": 0.3}, "1.0": {}}}, "text": "x"}
    assert fact(facts, ["held_out", "after", "*", "inside"]) == pytest.approx(0.2)
    assert fact(facts, ["held_out", "before", "*", "inside"]) is None
    assert fact(facts, ["text", "inside"]) is None

    def trial(**cosines):
        return type("Finished", (), {"scores": pd.DataFrame(cosines)})

    assert own_less_cross(trial(same=[[0.6, 0.4], [], None], cross=[[0.1], [0.3], None])) == pytest.approx(0.3)
    assert own_less_cross(trial(same=[[]], cross=[[]])) is None
    assert own_less_cross(trial(key=["a"])) is None


def test_scores_are_means_over_drawings_by_seed_and_prompt_and_none_may_be_missing(tmp_path):
    first, *_ = experiments(plan_of("alignment"))
    trials = []
    for seed, drawing in ((1, 0), (0, 0), (1, 1), (0, 1)):
        trial = Trial(first.model_copy(update={"seed": seed, "drawing": drawing}), tmp_path / f"{seed}{drawing}")
        file = trial.folder / scores_path(first.arm)
        file.parent.mkdir(parents=True)
        scores = [10.0 * seed + drawing, 100.0]
        pd.DataFrame({"key": ["b", "a"], "face_sim": scores}).to_parquet(file)
        trials.append(trial)
    prompts, scores = scores_of(trials, ["face_sim"])
    assert prompts == ["a", "b"]
    assert scores[first.arm.name]["face_sim"].tolist() == [[100.0, 10.5], [100.0, 0.5]]
    pd.DataFrame({"key": ["b", "a"], "face_sim": [10.0, 1.0], "leak_rate": [None, 0.5]}).to_parquet(file)
    again = Trial(trials[3].experiment, trials[3].folder)
    leaks = scores_of([again], ["leak_rate"])[1][first.arm.name]["leak_rate"]
    assert leaks[0, 0] == 0.5
    assert np.isnan(leaks[0, 1]), "an image without two located faces has no leak rate"
    pd.DataFrame({"key": ["b", "a"], "face_sim": [None, 1.0]}).to_parquet(file)
    with pytest.raises(ValueError, match="lacks scores of face_sim"):
        scores_of([*trials[:3], Trial(trials[3].experiment, trials[3].folder)], ["face_sim"])
    pd.DataFrame({"key": ["b", "c"], "face_sim": [1.0, 1.0]}).to_parquet(file)
    with pytest.raises(ValueError, match="answered other prompts"):
        scores_of([*trials[:3], Trial(trials[3].experiment, trials[3].folder)], ["face_sim"])


def test_an_experiment_names_its_stage():
    first = experiments(plan_of("alignment"))[0]
    assert isinstance(first, Experiment)
    assert (first.name, first.target) == ("alignment-ippo-s0-d0", "evaluate@train_rl")


def test_images_of_every_arm_stand_beside_the_references(tmp_path):
    plan = plan_of("ablation")
    planned = experiments(plan)
    prompts = [pair_prompt("two people", "ada", "bo"), pair_prompt("two people", "bo", "cy")]
    greys = {"ada": 10, "bo": 20, "cy": 30} | {arm.name: 40 + 20 * place for place, arm in enumerate(plan.arms)}
    square = {name: np.full((8, 8, 3), grey, np.uint8) for name, grey in greys.items()}
    trials = []
    for experiment in planned:
        trial = Trial(experiment, tmp_path / experiment.name)
        trials.append(trial)
        paths = analysed_paths(plan, experiment)
        assert not any(path != folder and path.startswith(f"{folder}/") for path in paths for folder in paths)
        exported = {PAIRS, images_path(trial.arm)} & set(paths)
        again = experiment.arm.name in plan.oracles
        assert bool(exported) == (again or experiment.seed == plan.seeds[0]), "else one seed is exported"
        if exported:
            drawn = [generated(prompt, square[trial.arm.name]) for prompt in prompts]
            write_shards(drawn, trial.folder / images_path(trial.arm), 8)
            pairs = trial.folder / PAIRS
            write_shards([pool_face(name, square[name]) for name in ("ada", "bo", "cy")], pairs / "faces", 8)
            write_shards(prompts, pairs / "bench", 8)
    pitch = TILE_PX + GAP_PX
    sheet = np.asarray(images(plan, trials, 2))
    assert sheet.shape == (2 * pitch + GAP_PX, 7 * pitch + GAP_PX, 3)
    centres = sheet[pitch // 2 :: pitch, pitch // 2 :: pitch, 0][:2, :7]
    arms = [greys[arm.name] for arm in plan.arms]
    assert centres.tolist() == [[10, 20, *arms], [20, 30, *arms]]
    assert np.asarray(images(plan, trials, 1)).shape[0] == pitch + GAP_PX
