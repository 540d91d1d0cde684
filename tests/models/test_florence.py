"""The adapter of Florence-2: format and wiring, with a tiny model whose weights are random or whose answer is given."""

import shutil

import numpy as np
import pytest

from mcpipe.models.florence import BINS, Florence2
from zoo.build.grounder import GrounderParams, new_model, new_processor
from zoo.build.training import FitParams

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
FIT = FitParams(seed=0, steps=1, batch=1, learning_rate=1e-3, warmup_steps=1, weight_decay=0.0, ema_decay=0.0)
PARAMS = GrounderParams(fit=FIT, size=32, stride=8, width=24, layers=1, vocabulary=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint in the format of the published one."""
    import torch

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("florence")
    processor = new_processor(["red mug", "striped blue box"], PARAMS)
    new_model(processor, PARAMS).save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture
def answering(folder, monkeypatch):
    """A grounder that gives an answer in words, as certain of each token as asked."""
    import torch
    from transformers.generation.utils import GenerateEncoderDecoderOutput

    grounder = Florence2(folder, 0.0)
    tokenizer = grounder._processor.tokenizer

    def answers(text, logit=20.0):
        def generate(**_):
            tokens = tokenizer(text)["input_ids"]
            logits = torch.zeros(len(tokens), 1, len(tokenizer))
            logits[torch.arange(len(tokens)), 0, tokens] = logit
            start = [tokenizer.eos_token_id]
            return GenerateEncoderDecoderOutput(sequences=torch.tensor([start + tokens]), logits=tuple(logits))

        monkeypatch.setattr(grounder._model, "generate", generate)
        return grounder

    return answers


def test_locations_are_shares_of_width_and_height(answering):
    boxes, certainties = answering("red mug<loc_0><loc_499><loc_249><loc_999>").boxes(PICTURE, "red mug")
    np.testing.assert_allclose(boxes, [[0.04, 19.98, 19.96, 39.98]])
    assert certainties == pytest.approx([1.0], abs=1e-4)


def test_every_four_locations_are_a_box_and_the_rest_is_left_out(answering):
    text = "red mug<loc_0><loc_0><loc_9><loc_9><loc_1><loc_1><loc_8><loc_8><loc_5>box<loc_2><loc_2><loc_7><loc_7>"
    boxes, _ = answering(text).boxes(PICTURE, "red mug")
    np.testing.assert_allclose(boxes[:, 2], [9.5 * 0.08, 8.5 * 0.08, 7.5 * 0.08])


@pytest.mark.parametrize("text", ["", "red mug", "red mug<loc_1><loc_2>", "red mug<loc_9><loc_9><loc_2><loc_30>"])
def test_answers_without_a_proper_box_give_none(answering, text):
    boxes, certainties = answering(text).boxes(PICTURE, "red mug")
    assert boxes.shape == (0, 4)
    assert certainties.shape == (0,)


def test_certainty_is_the_share_near_the_chosen_place(answering):
    grounder = answering("red mug<loc_100><loc_100><loc_200><loc_200>", logit=0.0)
    _, certainties = grounder.boxes(PICTURE, "red mug")
    assert certainties == pytest.approx([51 / len(grounder._processor.tokenizer)])
    grounder._min_certainty = 0.5
    assert len(grounder.boxes(PICTURE, "red mug")[0]) == 0


def test_the_library_reads_the_same_boxes_to_the_pixel(answering):
    text = "red mug<loc_100><loc_250><loc_700><loc_900>"
    grounder = answering(text)
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    read = grounder._processor.post_process_generation(text=text, task=task, image_size=(80, 40))[task]
    assert read["labels"] == ["red mug"]
    np.testing.assert_allclose(grounder.boxes(PICTURE, "red mug")[0], read["bboxes"], atol=1)


def test_an_untrained_model_answers_and_case_and_full_stop_do_not_matter(folder):
    grounder = Florence2(folder, 0.0)
    boxes, certainties = grounder.boxes(PICTURE, "red mug")
    assert len(boxes) == len(certainties)
    again, _ = grounder.boxes(PICTURE, " Red mug. ")
    np.testing.assert_array_equal(boxes, again)


def test_a_phrase_that_is_too_long_is_refused(folder):
    with pytest.raises(ValueError, match="the grounder reads 256 tokens, and 'red red .*; shorten the phrase"):
        Florence2(folder, 0.0).boxes(PICTURE, "red " * 300)


def test_a_folder_that_is_no_florence_is_refused_in_one_line(folder, root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no grounder folder"):
        Florence2(tmp_path / "absent", 0.35)
    with pytest.raises((ValueError, FileNotFoundError), match=str(root / "zoo" / "clip")):
        Florence2(root / "zoo" / "clip", 0.35)
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match="no usable grounder"):
        Florence2(tmp_path / "cut", 0.35)


def test_there_is_a_token_for_every_location(folder):
    grounder = Florence2(folder, 0.0)
    assert len(set(grounder._locations)) == BINS
