"""A text that is longer than an encoder reads is reported with the words that are lost."""

import logging

import numpy as np
import torch
from imports import ROOT

from mcpipe.core.texts import lost_text
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import encode_texts
from mcpipe.models.scorers.clip import Clip


def test_words_beyond_an_encoders_length_are_named(caplog):
    pipeline = load_generator(ROOT / "zoo" / "generator")
    short = "two people in a park"
    long = f"{short}, {', '.join(['a green tree'] * 40)}, a person with glasses"
    with caplog.at_level(logging.WARNING):
        whole = encode_texts(pipeline, [short])
        assert not caplog.records
        cut = encode_texts(pipeline, [long])
        encode_texts(pipeline, [long])
    assert [record.getMessage().split(" reads ")[0] for record in caplog.records] == ["T5", "CLIP"]
    assert all("glasses" in record.getMessage() for record in caplog.records)
    again = encode_texts(pipeline, [long.replace("with glasses", "with a beard")])
    assert torch.equal(cut.tokens, again.tokens), "this is why it has to be said"
    assert not torch.equal(whole.tokens, cut.tokens)
    limit = pipeline.tokenizer_2.model_max_length
    assert lost_text(pipeline.tokenizer_2, short, limit) == ""


def test_the_scorer_names_words_that_it_does_not_read(caplog):
    clip = Clip(ROOT / "zoo" / "clip")
    long = ", ".join(["a person in a red shirt"] * 40)
    with caplog.at_level(logging.WARNING):
        embeddings = clip.texts(["two people", long])
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert [record.getMessage()[:15] for record in caplog.records] == ["the CLIP scorer"]
