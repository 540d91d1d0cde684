"""The masked-attention oracle of a study: layouts, and what images drawn with them depend on."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from flux_fixtures import IMAGE_SIZE, REFERENCE_SIZE, give_values
from imports import ROOT
from record_fixtures import generated, pair_prompt, pool_face

from mcpipe.core.params import read_params
from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.protocols import Faces
from mcpipe.steps.generate import GenerateParams, Suite
from studies.ablation import oracle
from studies.ablation.analysis import HAS_LAYOUT, LAYOUTS, AblationPlan, diagnoses, summary
from studies.ablation.oracle import Masked, located, owners_of, slots_of
from studies.plan import experiments, read_plan
from studies.trials import Trial, scores_path

SPEC = AdapterSpec(rank=2, experts=None, image_size=IMAGE_SIZE, reference_size=REFERENCE_SIZE)
EVERYWHERE = np.array([0.0, 0.0, IMAGE_SIZE, IMAGE_SIZE])
NOWHERE = np.array([-300.0, -300.0, -299.0, -299.0])


def test_tokens_of_a_head_are_those_whose_centre_lies_in_its_square():
    """Boxes of 8 px have squares of 12 px; tokens of 8 px have their centres at 4, 12, 20 and 28."""
    boxes = {0: np.array([4.0, 4.0, 12.0, 12.0]), 1: np.array([12.0, 4.0, 20.0, 10.0])}
    owners = owners_of(boxes, (32, 32), (4, 4)).reshape(4, 4)
    # The squares are x 2..14, y 2..14 and x 10..22, y 1..13; a centre at x = 12 lies 4 px from either middle, 8 and 16.
    assert owners.tolist() == [[0, 0, 1, -1], [0, 0, 1, -1], [-1] * 4, [-1] * 4]
    assert (owners_of({}, (32, 32), (4, 4)) == -1).all()
    wide = owners_of({0: np.array([40.0, 0.0, 56.0, 16.0])}, (32, 64), (2, 4)).reshape(2, 4)
    assert wide.tolist() == [[-1, -1, 0, 0], [-1, -1, -1, -1]]


def test_slots_follow_the_order_of_the_references():
    boxes = {0: np.array([0.0, 0.0, 4.0, 4.0]), 1: np.array([24.0, 24.0, 28.0, 28.0])}
    image = generated(pair_prompt("two people", "a", "b"), np.zeros((32, 32, 3), np.uint8))
    straight, turned = (slots_of(boxes, np.array(order), image, (8, 8)) for order in ([0, 1], [1, 0]))
    assert (straight[0], straight[-10], straight[-1]) == (0, 1, -1)
    assert np.array_equal(turned, np.where(straight < 0, -1, 1 - straight))
    assert (slots_of(None, np.array([1, 0]), image, (8, 8)) == -1).all()


def test_everybody_is_located_or_there_is_no_layout():
    pool = {name: pool_face(name, np.zeros((8, 8, 3), np.uint8), embedding=np.eye(4, dtype=np.float32)[place])
            for place, name in enumerate("ab")}  # fmt: skip
    image = generated(pair_prompt("two people", "a", "b"), np.zeros((32, 32, 3), np.uint8))
    boxes = np.array([[0, 0, 4, 4], [8, 8, 16, 16]], np.float32)
    faces = Faces(boxes, np.ones(2, np.float32), np.zeros((2, 5, 2), np.float32), np.eye(4, dtype=np.float32)[[1, 0]])
    layout = located(image, pool, SimpleNamespace(faces=lambda _: faces))
    assert {person: box.tolist() for person, box in layout.items()} == {0: [8, 8, 16, 16], 1: [0, 0, 4, 4]}
    alone = Faces(boxes[:1], faces.scores[:1], faces.landmarks[:1], faces.embeddings[:1])
    assert located(image, pool, SimpleNamespace(faces=lambda _: alone)) is None


@pytest.fixture(scope="module")
def pipeline(generator_folder):
    pipeline = load_generator(generator_folder)
    add_adapter(pipeline.transformer, SPEC, seed=0)
    give_values(pipeline.transformer)
    return pipeline


def drawn(pipeline, values, layouts):
    """Images of ten prompts about two people whose references have some greys, with shuffled references."""
    params = read_params(ROOT / "params.yaml", "generate", GenerateParams)
    params = params.model_copy(update={"sample": SampleParams(num_steps=2, guidance=1.0, shift=1.5)})
    assert params.shuffle_references
    prompts = [pair_prompt(f"two people {number}", "a", "b") for number in range(10)]
    pool = {name: np.full((REFERENCE_SIZE, REFERENCE_SIZE, 3), value, np.uint8) for name, value in values.items()}
    first = [generated(prompt, np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 7, np.uint8)) for prompt in prompts]
    suite = Suite(pipeline, SPEC, prompts, pool, params)
    assert len({tuple(order) for order in suite.orders([prompt.names for prompt in prompts])}) == 2
    return [image.image for image in Masked(suite, layouts).images([prompt.names for prompt in prompts], first)]


def test_an_image_in_which_everything_is_a_persons_does_not_depend_on_the_other_one(pipeline):
    layouts = [{0: EVERYWHERE, 1: NOWHERE}] * 9 + [None]
    images = drawn(pipeline, {"a": 10, "b": 200}, layouts)
    other = drawn(pipeline, {"a": 10, "b": 60}, layouts)
    own = drawn(pipeline, {"a": 90, "b": 200}, layouts)
    assert all(np.array_equal(*pair) for pair in zip(images, other, strict=True))
    assert not any(np.array_equal(*pair) for pair in zip(images[:9], own[:9], strict=True))
    assert (images[9] == 7).all(), "without a layout the first image stays"


def test_an_oracle_is_a_row_beside_its_arm_and_has_no_training_of_its_own(tmp_path, monkeypatch):
    plan = read_plan(ROOT / "studies/ablation/plan.yaml", AblationPlan)
    trials = [Trial(experiment, tmp_path / experiment.name) for experiment in experiments(plan) if not experiment.seed]
    share = {"inside": 0.25}
    for trial in trials:
        for stage in trial.arm.trainings:
            trial.model(stage).mkdir(parents=True)
            report = {"stage": stage, "facts": {"held_out": {"after": {"attention": {"0": share}}}}, "rejected": {}}
            (trial.model(stage) / "report.json").write_text(json.dumps(report), encoding="utf-8")
        write_scores(trial, [0.5, 0.4])

    def redraw(trial, root, folder):
        assert (root / "params.yaml").is_file()
        folder.mkdir()
        (folder / LAYOUTS).write_text('{"share": 0.75}', encoding="utf-8")
        write_scores(Trial(trial.experiment, folder), [0.7, 0.8])

    monkeypatch.setattr(oracle, "redraw", redraw)
    monkeypatch.chdir(ROOT)
    extended, rows = oracle.with_oracles(plan, trials, tmp_path)
    assert [row.arm.name for row in rows] == [*plan.titles, "controloracle"]
    assert list(extended.titles) == [*plan.titles, "controloracle"]
    assert extended.comparisons == [*plan.comparisons, ["control", "controloracle"]]
    figures = diagnoses(extended, rows)
    assert set(figures[HAS_LAYOUT]) == {"controloracle"}
    assert figures[HAS_LAYOUT]["controloracle"].value == 0.75
    assert set(figures["flow loss"]) == set()
    changes = summary(extended, "0" * 40, rows).changes
    (gain,) = [change.change.value for change in changes if change.after == "controloracle"]
    assert gain == pytest.approx(0.3)


def write_scores(trial, values):
    file = trial.folder / scores_path(trial.arm)
    file.parent.mkdir(parents=True)
    pd.DataFrame({"key": ["a+b", "b+c"], "own_minus_cross": values}).to_parquet(file)
