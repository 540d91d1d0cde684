"""A text that is longer than an encoder reads is reported with the words that are lost."""

import logging

import numpy as np
import pytest
import torch
from imports import ROOT

from mcpipe.core.texts import clip_windows, cut_facts, lost_text, recorded_cuts, windows
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import encode_texts
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.text_limit import T5Limit

SHORT = "two people in a park"
LONG = f"{SHORT}, {', '.join(['a green tree'] * 40)}, a person with glasses"


def count_words(text):
    return len(text.split())


def test_words_beyond_t5s_length_are_named_and_clip_reads_all(caplog):
    pipeline = load_generator(ROOT / "zoo" / "generator")
    with caplog.at_level(logging.WARNING):
        short_alone = encode_texts(pipeline, [SHORT])
        assert not caplog.records
        cut = encode_texts(pipeline, [LONG])
        encode_texts(pipeline, [LONG])
    assert [record.getMessage().split(" reads ")[0] for record in caplog.records] == ["T5"]
    assert all("glasses" in record.getMessage() for record in caplog.records)
    again = encode_texts(pipeline, [LONG.replace("with glasses", "with a beard")])
    assert torch.equal(cut.tokens, again.tokens), "this is why it has to be said"
    assert not torch.equal(short_alone.tokens, cut.tokens)
    assert not torch.equal(cut.pooled, again.pooled), "the last person counts"
    limit = pipeline.tokenizer_2.model_max_length
    assert lost_text(pipeline.tokenizer_2, SHORT, limit) == ""


def test_a_pooled_text_is_stock_diffusers_where_it_fits_and_the_mean_of_its_windows_where_not():
    pipeline = load_generator(ROOT / "zoo" / "generator")
    parts = clip_windows(pipeline.tokenizer, LONG, pipeline.tokenizer.model_max_length)
    assert len(parts) > 1
    _, stock, _ = pipeline.encode_prompt(prompt=[SHORT, *parts], prompt_2=None, max_sequence_length=64)
    pooled = encode_texts(pipeline, [SHORT, LONG]).pooled
    torch.testing.assert_close(pooled[0], stock[0])
    torch.testing.assert_close(pooled[1], stock[1:].mean(0))


def test_scorers_read_a_long_text_in_windows_and_average_their_cosines(caplog):
    clip, hps = Clip(ROOT / "zoo" / "clip"), HpsV2_1(ROOT / "zoo" / "hps")
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    length = clip._model.config.text_config.max_position_embeddings
    parts = clip_windows(clip._processor.tokenizer, LONG, length)
    assert len(parts) > 1
    with caplog.at_level(logging.WARNING), recorded_cuts() as cut:
        short, long = clip.texts([SHORT, LONG])
        scores = hps.scores([picture] * 3, [SHORT, LONG, LONG.replace("glasses", "a beard")])
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
    seen = clip.pictures([picture])[0]
    assert seen @ long == pytest.approx(np.mean(clip.texts(parts) @ seen), abs=1e-6)
    assert scores[1] != scores[2], "the last person counts"
    windows_of_hps = hps._windows(LONG)
    expected = np.mean(hps.scores([picture] * len(windows_of_hps), windows_of_hps))
    assert scores[1] == pytest.approx(expected, abs=1e-6)
    assert not caplog.records
    assert cut_facts(cut) == {}


def test_a_word_that_no_window_holds_is_named_and_counted(caplog):
    clip, hps = Clip(ROOT / "zoo" / "clip"), HpsV2_1(ROOT / "zoo" / "hps")
    word = "glasses" * 80
    with caplog.at_level(logging.WARNING), recorded_cuts() as cut:
        clip.texts([word])
        hps.scores([np.zeros((16, 16, 3), np.uint8)], [word])
    assert [record.getMessage().split(" reads ")[0] for record in caplog.records] == ["CLIP scorer", "HPS"]
    assert cut_facts(cut) == {"texts_cut": {"CLIP scorer": 1, "HPS": 1}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a b c", ["a b c"]),
        ("", [""]),
        ("a b c. d e f. g h", ["a b c.", "d e f. g h"]),
        ("a b c, d e, f g h", ["a b c,", "d e, f g h"]),
        ("a b c d e f", ["a b c", "d e f"]),
        ("a b c d e f, g", ["a b c", "d e f, g"]),
    ],
)
def test_windows_are_equally_long_and_begin_at_sentences_clauses_or_words(text, parts):
    assert windows(text, count_words, 5) == parts
    assert " ".join(windows(text, count_words, 5)) == text, "nothing is lost"


def test_a_text_of_one_word_too_long_is_one_window_too_long():
    assert windows("abcdef", len, 5) == ["abcdef"]
    assert windows("a, bcdefghi", len, 5) == ["a,", "bcdefghi"]


def test_the_limit_of_captions_is_that_of_the_generator():
    folder = ROOT / "zoo" / "generator"
    tokenizer = load_generator(folder).tokenizer_2
    limit = T5Limit(folder / "tokenizer_2")
    words = "a person with brown hair and glasses " * 20
    kept = next(words[:end] for end in range(len(words), 0, -1) if not limit.lost(words[:end]))
    assert len(tokenizer(kept).input_ids) == tokenizer.model_max_length
    assert limit.lost(words)


def test_a_limit_without_its_files_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no T5 tokenizer folder"):
        T5Limit(tmp_path / "none")
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="no usable T5 tokenizer"):
        T5Limit(tmp_path)
