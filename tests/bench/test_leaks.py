"""Leaks with a reader whose verdicts are known."""

import numpy as np
import pytest

from mcpipe.bench.leaks import described, has_leak, leak_rate, leaked_descriptions

TAN, PALE = ("tan skin", "red hair", ""), ("pale skin", "red hair", "glasses")


class Reader:
    """Embeds a text as a unit vector of its own, the same for equal texts."""

    def __init__(self):
        self.known = []

    def texts(self, texts):
        for text in texts:
            if text not in self.known:
                self.known.append(text)
        return np.eye(16)[[self.known.index(text) for text in texts]]


def test_descriptions_exchange_one_differing_phrase_at_a_time():
    assert described(TAN) == "a person with tan skin and red hair"
    assert described(PALE) == "a person with pale skin, red hair and glasses"
    assert described(("", "")) == "a person"
    assert list(leaked_descriptions(TAN, [PALE])) == [
        "a person with pale skin and red hair",
        "a person with tan skin, red hair and glasses",
    ]
    assert list(leaked_descriptions(TAN, [TAN])) == []


@pytest.mark.parametrize("nearest", [0, 1, 2])
def test_a_face_nearer_to_a_phrase_of_the_other_person_leaks(nearest):
    reader = Reader()
    texts = [described(TAN), *leaked_descriptions(TAN, [PALE])]
    face = reader.texts(texts)[nearest]
    assert has_leak(face, TAN, [PALE], reader) is (nearest > 0)


def test_people_who_are_described_alike_cannot_leak():
    reader = Reader()
    own, *_ = reader.texts([described(TAN), *leaked_descriptions(TAN, [PALE])])
    assert has_leak(own, TAN, [TAN], reader) is None
    assert leak_rate({0: own, 1: own}, [TAN, TAN], reader) is None
    assert leak_rate({}, [TAN, PALE], reader) is None
    glasses = reader.texts(["a person with tan skin, red hair and glasses"])[0]
    assert leak_rate({0: glasses}, [TAN, PALE], reader) == 1.0
    right = reader.texts([described(PALE)])[0]
    assert leak_rate({0: glasses, 1: right}, [TAN, PALE], reader) == 0.5
