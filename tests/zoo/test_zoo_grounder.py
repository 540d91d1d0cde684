"""What the grounder learns from: phrases and what they mean, boxes of things, a loss that knows nearness."""

import numpy as np
import pytest
import torch

from mcpipe.models.florence import TASK
from zoo.build.grounder import (
    SPREAD,
    GrounderParams,
    answer_of,
    grounding_loss,
    inputs_of,
    new_heads,
    new_model,
    new_processor,
    soft_cross_entropy,
)
from zoo.build.grounder_data import draw
from zoo.build.grounder_scores import overlap, score
from zoo.build.packing import build as pack
from zoo.build.phrases import Phrase, absent_phrase, phrase_of, sample_phrase
from zoo.build.things import ThingsParams, build, read_things
from zoo.build.training import FitParams

FIT = FitParams(seed=0, steps=1, batch=1, learning_rate=1e-3, warmup_steps=1, weight_decay=0.0, ema_decay=0.0)
SMALL = GrounderParams(fit=FIT, size=32, stride=8, width=24, layers=1, vocabulary=300)
CUP = {
    "family": "cup", "colour": "red", "pattern": "striped", "second_colour": "white", "part": "handle",
    "part_colour": "orange",
}  # fmt: skip
BALL = {
    "family": "ball", "colour": "red", "pattern": "plain", "second_colour": "none", "part": "none",
    "part_colour": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    sizes = {"num_scenes": 12, "num_test_scenes": 1, "num_gallery_things": 2, "gallery_pictures": 2}
    build(folder, ThingsParams(**sizes, scene_captions=1, workers=1))
    return read_things(folder / "train")


def test_a_phrase_says_what_it_demands():
    assert phrase_of(CUP, "name").text == "cup"
    assert phrase_of(CUP, "colour").text == "red cup"
    assert phrase_of(CUP, "pattern").text == "striped red cup"
    assert phrase_of(CUP, "part").text == "striped red cup with an orange handle"
    assert phrase_of(BALL, "part").text == "red ball"
    assert phrase_of(CUP, "any").text == "red thing"


def test_a_phrase_means_all_things_that_fit_it():
    assert phrase_of(CUP, "name").matches([BALL, CUP]) == [1]
    assert phrase_of(CUP, "any").matches([BALL, CUP]) == [0, 1]
    assert Phrase("blue cup", {"family": "cup", "colour": "blue"}).matches([BALL, CUP]) == []


def test_absent_phrases_describe_nothing_and_sampled_ones_mostly_something():
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert not absent_phrase([CUP, BALL], CUP, "pattern", rng).matches([CUP, BALL])
    meant = [len(sample_phrase([CUP, BALL], rng).matches([CUP, BALL])) for _ in range(400)]
    assert 0.08 < meant.count(0) / len(meant) < 0.25
    assert meant.count(2) > 0


def test_training_pictures_have_the_boxes_of_what_belongs(pictures):
    rng = np.random.default_rng(1)
    for _ in range(60):
        example = draw(pictures, 48, 6, rng)
        assert example.rgb.shape == (48, 48, 3)
        assert np.all((example.boxes >= 0) & (example.boxes <= 1))
        assert (example.belongs > 0).any() == bool(len(example.boxes))
        if len(example.boxes) == 1:
            rows, columns = np.nonzero(example.belongs)
            left, top, right, bottom = 6 * example.boxes[0]
            assert columns.min() == int(left)
            assert rows.min() == int(top)
            assert columns.max() == int(np.ceil(right)) - 1
            assert rows.max() == int(np.ceil(bottom)) - 1
        assert answer_of(example).count("<loc_") == 4 * len(example.boxes)


def test_training_reads_what_the_processor_makes_of_a_picture_and_a_phrase(pictures):
    processor = new_processor(["red cup", "striped blue box"], SMALL)
    drawn = [draw(pictures, SMALL.size, SMALL.cells, np.random.default_rng(number)) for number in range(3)]
    pixels, ids, mask = inputs_of(processor, drawn)
    made = processor(
        images=[example.rgb for example in drawn], text=[TASK + example.phrase.text for example in drawn],
        padding=True, return_tensors="pt",
    )  # fmt: skip
    torch.testing.assert_close(pixels, made["pixel_values"], atol=1e-5, rtol=0)
    assert torch.equal(ids, made["input_ids"])
    assert torch.equal(mask, made["attention_mask"])


def test_a_few_steps_lower_every_term_of_the_loss(pictures):
    torch.manual_seed(0)
    processor = new_processor([scene["phrases"][0] for scene in pictures.scenes], SMALL)
    model, heads = new_model(processor, SMALL), new_heads(SMALL)
    drawn = [draw(pictures, SMALL.size, SMALL.cells, np.random.default_rng(number)) for number in range(6)]
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    for _ in range(15):
        loss = grounding_loss(model, heads, processor, drawn)
        loss.total().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append({name: float(term.detach()) for name, term in loss.items()})
    assert all(losses[-1][name] < losses[0][name] for name in ("words", "where", "found", "seen"))


def test_a_location_near_the_true_one_costs_less_than_a_far_one_and_the_spread_itself_nothing():
    first, size = 3, 1003
    labels = torch.tensor([[first + 500, 1]])

    def cost(place):
        logits = torch.full((1, 2, size), -30.0)
        logits[0, 0, first:] = -0.5 * ((torch.arange(1000) - place) / SPREAD) ** 2
        logits[0, 1, 1] = 0.0
        return float(soft_cross_entropy(logits, labels, first)[1])

    assert cost(500) == pytest.approx(0.0, abs=1e-4)
    assert cost(500) < cost(510) < cost(550)
    words, where = soft_cross_entropy(torch.zeros(1, 1, size), torch.tensor([[2]]), first)
    assert float(words) == pytest.approx(np.log(size), rel=1e-4)
    assert float(where) == 0.0


class Oracle:
    """A grounder that knows the pictures, or one that finds nothing."""

    def __init__(self, pictures, *, blind):
        self._pictures, self._blind = pictures, blind

    def boxes(self, picture, phrase):
        """True boxes of the things whose words are in the phrase; the whole image of a reference is one thing."""
        for index, scene in enumerate(self._pictures.scenes):
            if not self._blind and np.array_equal(self._pictures.square(index), picture):
                words = phrase.split()
                fits = [
                    box
                    for box, attributes in zip(scene["boxes"], scene["attributes"], strict=True)
                    if all(word in (*attributes.values(), "thing") for word in words)
                ]
                return np.array(fits).reshape(-1, 4), np.ones(len(fits))
        return np.zeros((0, 4)), np.zeros(0)


def test_scores_of_true_boxes_are_full_and_those_of_none_are_nothing(pictures):
    right = score(Oracle(pictures, blind=False), pictures)
    assert right["mean_iou"] == right["located"] == right["absent_refused"] == 1
    wrong = score(Oracle(pictures, blind=True), pictures)
    assert wrong["mean_iou"] == wrong["located"] == wrong["reference_iou"] == 0
    assert overlap(np.array([0, 0, 2, 1]), np.array([1, 0, 3, 1])) == pytest.approx(1 / 3)


def test_a_packed_checkpoint_is_smaller_and_equal(tmp_path):
    file = tmp_path / "weights.pt"
    weights = {"random": torch.randn(64, 64).half(), "constant": torch.zeros(64, 64).half()}
    torch.save({"model": weights}, file)
    before = file.stat().st_size
    pack(file)
    once = file.read_bytes()
    assert len(once) < 0.6 * before
    read = torch.load(file, weights_only=True)["model"]
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    pack(file)
    assert file.read_bytes() == once
    file.write_text("weights", encoding="utf-8")
    with pytest.raises(ValueError, match="is no checkpoint of PyTorch's zip format"):
        pack(file)
