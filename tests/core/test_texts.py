"""A text that is longer than an encoder reads is reported with the words that are lost."""

import logging

import numpy as np
import pytest
import torch
from imports import ROOT

from mcpipe.core.texts import cut_facts, lost_text, recorded_cuts
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import encode_texts
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.text_limit import T5Limit


def test_words_beyond_an_encoders_length_are_named(caplog):
    pipeline = load_generator(ROOT / "zoo" / "generator")
    short = "two people in a park"
    long = f"{short}, {', '.join(['a green tree'] * 40)}, a person with glasses"
    with caplog.at_level(logging.WARNING):
        short_alone = encode_texts(pipeline, [short])
        assert not caplog.records
        cut = encode_texts(pipeline, [long])
        encode_texts(pipeline, [long])
    assert [record.getMessage().split(" reads ")[0] for record in caplog.records] == ["T5", "CLIP"]
    assert all("glasses" in record.getMessage() for record in caplog.records)
    again = encode_texts(pipeline, [long.replace("with glasses", "with a beard")])
    assert torch.equal(cut.tokens, again.tokens), "this is why it has to be said"
    assert not torch.equal(short_alone.tokens, cut.tokens)
    limit = pipeline.tokenizer_2.model_max_length
    assert lost_text(pipeline.tokenizer_2, short, limit) == ""


def test_scorers_name_and_count_the_words_that_they_do_not_read(caplog):
    clip, hps = Clip(ROOT / "zoo" / "clip"), HpsV2_1(ROOT / "zoo" / "hps")
    picture = np.zeros((16, 16, 3), np.uint8)
    long = ", ".join(["a person in a red shirt"] * 40) + ", a person with glasses"
    with caplog.at_level(logging.WARNING), recorded_cuts() as cut:
        embeddings = clip.texts(["two people", long, long])
        scores = hps.scores([picture] * 3, ["two people", long, long.replace("glasses", "a beard")])
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert scores[1] == scores[2], "this is why it has to be said"
    encoders = [record.getMessage().split(" reads ")[0] for record in caplog.records]
    assert encoders == ["CLIP scorer", "HPS", "HPS"]
    assert all("glasses" in record.getMessage() for record in caplog.records[:2])
    assert cut_facts(cut) == {"texts_cut": {"CLIP scorer": 1, "HPS": 2}}
    assert cut_facts({}) == {}


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
