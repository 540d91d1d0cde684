"""The rewards of PSR: subjects paired by name, a judge that may stay silent, and a fresh LoRA over a frozen adapter."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_scorers import Encoder, Scorer
from grounder_fixtures import write_grounder
from psr_fixtures import StandInJudge
from record_fixtures import pair_prompt, pool_face
from rl_fixtures import BrightnessScorer, network_of, prompts_of, settings

from mcpipe.core.report import Report, read_report
from mcpipe.core.shards import write_shards
from mcpipe.flux.adapters import PLAIN_FILE, AdapterSpec, ExpertParams, read_spec, read_weights, save_adapter
from mcpipe.flux.sampler import encode_conditions
from mcpipe.models.protocols import Verdict
from mcpipe.models.scorers.judge import Judge
from mcpipe.objectives.advantage import combined_advantage, completed, group_advantage
from mcpipe.objectives.pairwise import boxes_by_name, crop
from mcpipe.objectives.reward import identity_reward
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.prompts import named_prompts
from mcpipe.train.rl.rewards import PairwiseScorer, Prompt, ScorerError, Scorers, rewards
from mcpipe.train.rl.rollout_log import ImageScores
from stages import s10_train_rl

RED, GREEN = (250, 0, 0), (0, 250, 0)
COLOURS = {"a red mug": RED, "a green bag": GREEN}
PSR = {"text": 0.0, "aesthetic": 0.2, "identity": 0.4, "semantic": 0.4}


class SpotGrounder:
    """Finds pixels of a named colour; each further one is more certain than those before it."""

    def boxes(self, picture, phrase):
        places = [place for place in np.ndindex(picture.shape[:2]) if tuple(picture[place]) == COLOURS[phrase]]
        boxes = [(x, y, x + 1, y + 1) for y, x in places]
        return np.reshape(boxes, (-1, 4)).astype(float), np.linspace(0.5, 0.9, len(boxes))


class Silent:
    """A judge that has no valid score for images of a colour."""

    def __init__(self, unreadable=None):
        self.unreadable, self.asked = unreadable, []

    def verdict(self, picture, subset, prompt):
        self.asked.append((subset, prompt))
        score = None if tuple(picture[0, 0]) == self.unreadable else 0.9
        return Verdict(score, None, 3 if score is None else 1)


def spots(*colours):
    """Pixels on white ground."""
    drawn = np.full((2, 4, 3), 255, np.uint8)
    for place, colour in enumerate(colours):
        drawn[0, place] = colour
    return drawn


def scorers_of(judge=None):
    scorer = PairwiseScorer(SpotGrounder(), Encoder())
    return Scorers(scorer, Encoder(), Scorer(), scorer, judge)


def prompt_about(*names, references=None):
    scorer = PairwiseScorer(SpotGrounder(), Encoder())
    pictures = [spots(COLOURS[name]) for name in names] if references is None else references
    embeddings = np.concatenate([scorer.features(image, [name]) for image, name in zip(pictures, names, strict=True)])
    return Prompt("p", "things on a table", pictures, embeddings, embeddings, names)


def test_the_worked_example_of_the_paper():
    """T18: (0.6 + 0.8) / 2 = 0.7, and with a semantic score of 0.9 and a preference of 1.1 a reward of 0.86."""
    consistency = identity_reward(np.diag([0.6, 0.8]), "by_name")
    assert consistency == pytest.approx(0.7)
    parts = {"text": 0.3, "aesthetic": 1.1, "identity": consistency, "semantic": 0.9}
    weights = settings(rewards=PSR | {"matching": "by_name"}, psr=dict.fromkeys(("grounder", "encoder", "judge"), "x"))
    total = sum(weight * parts[name] for name, weight in weights.rewards.weights.items())
    assert total == pytest.approx(0.28 + 0.36 + 0.22)
    assert sum(PSR.values()) == pytest.approx(1)


def test_pairing_by_name_assigns_nothing():
    """The other subject is more like the reference than its own, and negative cosines stay."""
    crossed = np.array([[0.1, 0.9], [0.8, -0.2]])
    assert identity_reward(crossed, "by_name") == pytest.approx(-0.05)
    assert identity_reward(crossed, "hungarian") == pytest.approx(0.85)
    with pytest.raises(ValueError, match="by_name needs a subject per reference, found 3 for 2"):
        identity_reward(np.zeros((2, 3)), "by_name")
    assert identity_reward(np.zeros((2, 0)), "by_name") == 0


def test_subjects_are_located_on_both_sides_and_missing_ones_count_zero():
    about = prompt_about("a red mug", "a green bag")
    pictures = [spots(RED, GREEN), spots(GREEN, RED), spots(RED), spots()]
    assert rewards(scorers_of(), pictures, about, "by_name")["identity"].tolist() == pytest.approx([1, 1, 0.5, 0])
    unseen = prompt_about("a red mug", "a green bag", references=[spots(RED), spots(RED)])
    assert rewards(scorers_of(), pictures[:1], unseen, "by_name")["identity"].item() == pytest.approx(0.5)


def test_two_subjects_of_one_name_take_its_most_certain_boxes_in_turn():
    detections = SpotGrounder().boxes(spots(RED, RED, RED), "a red mug")
    boxes = boxes_by_name(["a red mug"] * 4, {"a red mug": detections})
    assert [box if box is None else box[0] for box in boxes] == [2, 1, 0, None]
    about = prompt_about("a red mug", "a red mug")
    assert rewards(scorers_of(), [spots(RED)], about, "by_name")["identity"].item() == pytest.approx(0.5)


def test_a_box_is_cut_to_the_image_and_one_outside_it_is_no_subject():
    picture = spots(RED)
    assert crop(picture, np.array([-3.0, -1, 1.9, 9])).shape == (2, 1, 3)
    assert crop(picture, np.array([5.0, 0, 9, 1])) is None
    assert crop(picture, None) is None


def test_a_prompt_without_names_drops_the_group_by_name():
    with pytest.raises(ScorerError, match="prompt p has 1 subjects and 0 names"):
        rewards(scorers_of(), [spots(RED)], replace(prompt_about("a red mug"), names=()), "by_name")


def test_a_judge_is_asked_about_everything_and_a_missing_score_drops_nothing():
    judge = Silent(unreadable=GREEN)
    scores = rewards(scorers_of(judge), [spots(RED), spots(GREEN)], prompt_about("a red mug"), "by_name")
    assert judge.asked == [("", "things on a table")] * 2
    assert scores["semantic"][0] == 0.9
    assert scores["semantic"][1].isnan()
    assert scores["identity"].tolist() == pytest.approx([1, 0])
    assert "semantic" not in rewards(scorers_of(), [spots(RED)], prompt_about("a red mug"), "by_name")


def test_an_answer_is_parsed_strictly_asked_again_and_then_missing():
    model = StandInJudge("8 of 10", "[Score]: 12", "[Score]: 8")
    scores = rewards(scorers_of(Judge(model, 0.2, 64, 3, 5)), [spots(RED)], prompt_about("a red mug"), "by_name")
    assert scores["semantic"].item() == pytest.approx(0.8)
    assert [asked[3] for asked in model.asked] == [5, 6, 7], "another seed each time"
    silent = Judge(StandInJudge("it looks fine"), 0.2, 64, 2, 0)
    assert rewards(scorers_of(silent), [spots(RED)], prompt_about("a red mug"), "by_name")["semantic"].isnan().all()


def test_a_judge_that_fails_drops_the_group_by_name():
    class Broken:
        def verdict(self, picture, subset, prompt):
            raise RuntimeError("no more memory")

    with pytest.raises(ScorerError, match="semantic_failed"):
        rewards(scorers_of(Broken()), [spots(RED)], prompt_about("a red mug"), "by_name")


def test_a_missing_reward_takes_no_side():
    nan = float("nan")
    given = torch.tensor([0.2, nan, 0.8], dtype=torch.float64)
    expected = 0.3 / math.sqrt(0.18)
    assert group_advantage(given).tolist() == pytest.approx([-expected, 0, expected], abs=1e-6)
    assert group_advantage(torch.tensor([nan, 0.5])).tolist() == [0, 0]
    assert group_advantage(torch.tensor([nan, nan])).tolist() == [0, 0]
    assert completed(given).tolist() == pytest.approx([0.2, 0.5, 0.8])
    assert completed(torch.tensor([nan, nan])).tolist() == [0, 0]
    other = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    scores, weights = {"identity": other, "semantic": given}, {"identity": 0.5, "semantic": 0.5}
    by_advantage = combined_advantage(scores, weights, "advantage", 5.0)
    assert by_advantage.tolist() == pytest.approx([0.5 * (-1 - expected), 0, 0.5 * (1 + expected)], abs=1e-6)
    by_reward = combined_advantage(scores, weights, "reward", 5.0)
    torch.testing.assert_close(by_reward, group_advantage(0.5 * other + 0.5 * completed(given)))


def test_a_missing_score_is_null_in_the_log_and_without_a_judge_there_is_none():
    row = ImageScores(0, 0, "a", 0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert "semantic" not in row.to_record()
    assert json.loads(json.dumps(replace(row, semantic=float("nan")).to_record()))["semantic"] is None
    assert replace(row, semantic=0.7).to_record()["semantic"] == 0.7


def test_images_without_a_score_are_counted(generator, people):
    class EveryOther:
        asked = 0

        def verdict(self, picture, subset, prompt):
            self.asked += 1
            return Verdict(None if self.asked % 2 else 0.5 + self.asked / 100, None, 1)

    scorer = BrightnessScorer()
    params = settings(rewards=PSR | {"matching": "hungarian"}, psr={"judge": "x"})
    scorers = Scorers(scorer, scorer, scorer, scorer, EveryOther())
    learner = Learner(generator, network_of(generator), scorers, params, Report("train_rl"))
    prompt = prompts_of(people)[0]
    conditions = encode_conditions(generator, [prompt.text], [np.stack(prompt.references)])
    result = learner.iteration(0, [prompt], {prompt.key: conditions}, range(1))
    assert learner.num_unjudged == 2
    assert [math.isnan(score.semantic) for score in result.scores] == [True, False, True, False]
    assert result.summary["reward_semantic"] == pytest.approx((0.52 + 0.54) / 2)
    assert all(math.isfinite(score.advantage) for score in result.scores)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rewards": {"matching": "by_name"}}, "set rl_psr.grounder and rl_psr.encoder"),
        ({"psr": {"grounder": "x"}}, "hungarian is for faces; with rl_psr.grounder set by_name"),
        ({"rewards": {"semantic": 0.4}}, "set rl_psr.judge, or the weight to 0"),
        ({"psr": {"preference": "x"}, "update": {"aggregate": "reward"}}, "set rl_update.aggregate to advantage"),
        ({"rank": 0}, "greater than or equal to 1"),
    ],
)
def test_rewards_without_their_models_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        settings(**change)


SPEC = AdapterSpec(rank=4, experts=ExpertParams(num_experts=4, top_k=1, router="st"), image_size=32, reference_size=16)


@pytest.fixture
def inputs(generator, tmp_path):
    """A prompt about two subjects with phrases, and an adapter."""
    rng = np.random.default_rng(0)
    faces = [
        pool_face(
            key,
            rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            attributes={"description": phrase},
            embedding=np.eye(512, dtype=np.float32)[place],
        )
        for place, (key, phrase) in enumerate({"a": "a red mug", "b": "a cat"}.items())
    ]
    write_shards(faces, tmp_path / "pairs" / "faces", 8)
    write_shards([pair_prompt("a red mug and a cat", "a", "b")], tmp_path / "pairs" / "rl", 8)
    network_of(generator)
    (tmp_path / "train_multi").mkdir()
    save_adapter(generator.transformer, SPEC, tmp_path / "train_multi")
    write_grounder(tmp_path / "grounder", edge=96)
    return tmp_path


def test_stage_three_by_the_recipe_trains_a_fresh_lora_and_counts_what_the_judge_does_not_say(
    inputs, generator_folder, root
):
    """The zoo's captioner gives no scores, so that all of them are missing and the other rewards decide."""
    zoo = root / "zoo"
    packs = (zoo / "faces" / "models" / "puppet", zoo / "faces_heldout" / "models" / "puppet_heldout")
    models = {"grounder": inputs / "grounder", "encoder": zoo / "dino", "judge": zoo / "captioner"}
    models |= {"preference": zoo / "hpsv3"}
    params = settings(
        num_iterations=1,
        rank=2,
        sampling={"num_steps": 3, "group_size": 2, "samples_per_pass": 1, "window_size": 2, "stride": 0},
        update={"ratio": "step", "gradient": "two_pass", "updates_per_rollout": 1},
        rewards=PSR | {"matching": "by_name"},
        psr={name: str(folder) for name, folder in models.items()} | {"box_threshold": 0.0, "max_tokens": 8},
    )
    s10_train_rl.run(
        inputs / "pairs", inputs / "train_multi", generator_folder, *packs, zoo / "clip_reward", zoo / "hps_reward",
        inputs / "train_rl", params,
    )  # fmt: skip
    out = inputs / "train_rl"
    rows = [json.loads(line) for line in (out / "rewards.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["semantic"] for row in rows] == [None, None]
    assert all(row["identity"] != 0 for row in rows), "both subjects are located and compared"
    assert max(abs(row["aesthetic"]) for row in rows) > 1, "HPSv3 scores, whose values are no cosines"
    assert {row["advantage"] for row in rows} != {0.0}
    facts = read_report(out)["facts"]
    assert facts["semantic_missing"] == 2
    assert facts["references_not_located"] == []
    assert read_spec(out).rank == SPEC.rank + 2
    before, after = (read_weights(folder / PLAIN_FILE, "") for folder in (inputs / "train_multi", out))
    name = next(name for name in before if "to_q.lora_A" in name)
    assert torch.equal(after[name][: SPEC.rank], before[name]), "the adapter of stage 2 stays as it is"
    added = after[name.replace("lora_A", "lora_B")][:, SPEC.rank :]
    assert bool(added.any()), "the fresh LoRA has learned"


def test_prompts_get_phrases_and_references_that_are_not_located_are_named(tmp_path):
    phrases, picture = {"a": "a red mug", "b": "a green bag"}, spots(RED)[:, :2]
    faces = [pool_face(key, picture, attributes={"description": phrase}) for key, phrase in phrases.items()]
    write_shards(faces, tmp_path / "faces", 8)
    write_shards([pair_prompt("a mug and a bag", "a", "b")], tmp_path / "rl", 8)
    zeros = np.zeros((2, 3))
    bare = Prompt("a+b", "a mug and a bag", [face.reference for face in faces], zeros, zeros)
    scorer = PairwiseScorer(SpotGrounder(), Encoder())
    named = named_prompts(tmp_path, [bare], scorer, "description")
    (prompt,) = named.prompts
    assert prompt.names == ("a red mug", "a green bag")
    assert prompt.embeddings[0].tolist() == scorer.features(picture, ["a red mug"])[0].tolist()
    assert (named.not_located, prompt.embeddings[1].tolist()) == (["b"], [0, 0, 0])
    with pytest.raises(ValueError, match=r"a\.png has no 'name' in the table of the pool"):
        named_prompts(tmp_path, [bare], scorer, "name")
