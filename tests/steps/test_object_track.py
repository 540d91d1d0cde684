"""The whole track of objects, a few steps on a random tiny generator: from rows to a table."""

from dataclasses import replace

import numpy as np
import pytest
from fake_scorers import Encoder, Scorer
from object_fixtures import finder, objects_params, row, scene, stand_in_models, write_rows
from rl_fixtures import settings as rl_settings
from training_fixtures import ENCODE, MULTI, SINGLE

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import text_table
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import GeneratedImage
from mcpipe.core.shards import read_shards
from mcpipe.flux.encoded import write_encoded
from mcpipe.flux.sampler import SampleParams
from mcpipe.steps.evaluate import ObjectScoreParams
from mcpipe.steps.generate import ControlParams, GenerateParams, write_images
from mcpipe.steps.object_prompts import ObjectPromptsParams, write_object_prompts
from mcpipe.steps.object_rewards import RememberingDetector, read_object_prompts
from mcpipe.steps.object_scores import write_object_scores
from mcpipe.steps.objects import ObjectsWork, write_objects
from mcpipe.train.multi import write_multi
from mcpipe.train.rl.rewards import ObjectScorer, Scorers
from mcpipe.train.rl.stage import RLTraining, write_rl
from mcpipe.train.single import write_single

GENERATE = GenerateParams(
    sample=SampleParams(num_steps=2, guidance=4.0, shift=1.5), seed=0, shuffle_references=True,
    controls=ControlParams(kinds=["no_references", "other_people", "swapped"], num_targets=4), records_per_shard=4,
)  # fmt: skip
SCORE = ObjectScoreParams(min_score=0.5, pick_score=None, interval=IntervalParams(resamples=100, seed=0))


class Texts(Encoder):
    """Embeds pictures and texts in one space of three numbers."""


def colour_scorers(training):
    """In place of the zoo's models."""
    scorer = ObjectScorer(RememberingDetector(finder()), Encoder())
    encoders = (Encoder(), Encoder())

    def prompts(spec):
        return read_object_prompts(training.pairs, spec, encoders)

    return Scorers(scorer, Texts(), Scorer(), scorer), prompts


@pytest.fixture(scope="module")
def track(tmp_path_factory, generator_folder):
    data = tmp_path_factory.mktemp("objects")
    rows = [row(*pair, number=number) for number, pair in enumerate([("red", "blue"), ("green", "yellow")] * 5)]
    write_rows(data / "rows", rows)
    models = stand_in_models(data / "models")
    write_objects(ObjectsWork(models, data / "models", objects_params(num_held_out=4)), data / "rows", data / "samples")
    prompts = ObjectPromptsParams(num_rl=4, seed=0, min_objects=2, records_per_shard=4)
    write_object_prompts(data / "samples", data / "prompts", prompts)
    write_encoded(data / "samples", generator_folder, data / "encoded", ENCODE)
    write_single(data / "encoded", generator_folder, data / "models" / "train_single", SINGLE)
    multi = data / "models" / "train_multi"
    write_multi(data / "encoded", data / "models" / "train_single", generator_folder, multi, MULTI)
    params = rl_settings(
        num_iterations=1, sampling={"num_steps": 3, "group_size": 2, "samples_per_pass": 1, "window_size": 1}
    )
    training = RLTraining(data / "prompts", multi, generator_folder, {}, colour_scorers, params)
    write_rl(training, data / "models" / "train_rl")
    arm = data / "images" / "train_rl"
    write_images(data / "prompts", data / "samples", data / "models" / "train_rl", generator_folder, arm, GENERATE)
    return data


def test_the_attention_of_every_object_is_trained_and_kept(track):
    facts = read_report(track / "models" / "train_multi")["facts"]
    assert facts["curves"]["attention"]["last"] > 0
    assert len(list((track / "models" / "train_multi" / "attention").glob("*.safetensors"))) == 4


def test_stage_three_scores_pictures_of_objects(track):
    report = read_report(track / "models" / "train_rl")
    assert report["kept"] == 1
    assert report["facts"]["stopped"] is None


def test_every_prompt_has_an_image_and_every_control_one_from_the_same_noise(track):
    folder = track / "images" / "train_rl"
    images = {image.key: image for image in read_shards(folder, GeneratedImage)}
    assert len(images) == 4
    for kind in ("no_references", "other_people", "swapped"):
        control = {image.key: image for image in read_shards(folder / "controls" / kind, GeneratedImage)}
        assert control.keys() == images.keys()
        assert all(control[key].seed == images[key].seed for key in images)
        assert any(not np.array_equal(control[key].image, images[key].image) for key in images)
    for image in read_shards(folder / "controls" / "other_people", GeneratedImage):
        assert not set(image.names) & set(images[image.key].names)


def test_the_arm_is_scored_into_a_table(track, root):
    zoo = root / "zoo"
    models = {"clip": zoo / "clip", "dino": zoo / "dino", "hps": zoo / "hps"}
    out = track / "results" / "train_rl"
    write_object_scores(
        track / "prompts", track / "images" / "train_rl", stand_in_models(track / "models"), models, out, SCORE
    )
    scores = read_scores(out)
    assert (scores.suite, scores.num_pictures, scores.num_missing) == ("objects", 4, 0)
    assert scores.means["dino_i_ceiling"].value > scores.means["dino_i"].value, "noise is no picture of an object"
    assert scores.means["detection_rate"].value < 1
    assert "Object lift" in text_table([scores])
    assert {"models.grounder", "models.segmenter", "models.dino"} <= scores.protocol.keys()


def test_an_image_is_searched_once_for_each_phrase():
    counted = finder()
    asked = []
    counting = replace(counted, grounder=Counting(counted.grounder, asked))
    detector, picture = RememberingDetector(counting), scene(("red", 4, 4, 20, 20))
    for _ in range(2):
        assert len(detector.crops(picture, "red box")) == 1
        assert detector.crops(picture, "blue box") == ()
    assert asked == ["red box", "blue box"]
    np.testing.assert_array_equal(detector.crops(picture, "red box")[0], counted.crops(picture, "red box")[0])


class Counting:
    """Keeps the phrases that it was asked for."""

    def __init__(self, grounder, asked):
        self.grounder, self.asked = grounder, asked

    def boxes(self, picture, phrase):
        self.asked.append(phrase)
        return self.grounder.boxes(picture, phrase)
