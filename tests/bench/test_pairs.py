"""Who appears together, and the prompts."""

from collections import Counter
from math import comb

import numpy as np
import pytest
from bench_fixtures import scene
from PIL import Image
from record_fixtures import reason_of

from mcpipe.bench.balance import balanced_faces, counts, evenness, largest_gap
from mcpipe.bench.pairs import Split, SplitParams, all_pairs, num_held_out, split_pairs
from mcpipe.bench.portraits import Portrait
from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report, read_report
from mcpipe.core.schemas.benchmark import PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.curate.captions import SentenceParams
from mcpipe.models.protocols import Faces
from mcpipe.steps.pairs import (
    PairsParams,
    PromptWriter,
    attempt_seeds,
    composition,
    face_of,
    prompt_of,
    write_faces,
    write_prompts,
)

POOL = [f"face-{i:03d}" for i in range(160)]
SENTENCE = SentenceParams(min_words=3, max_words=20, attempts=3, temperature=1.0, max_tokens=30, seed=0)


# 160 people of two genders and three ages, as unevenly as they come.
LABELS = {
    face: {"gender": "woman" if i % 5 < 2 else "man", "age": ("young", "middle", "old")[i % 7 // 3]}
    for i, face in enumerate(POOL)
}


def split_params(split="pair", num_bench=1000, num_rl=20000, seed=0, draw="even"):
    return SplitParams(split=split, draw=draw, num_bench=num_bench, num_faces=None, num_rl=num_rl, seed=seed)


def pairs_params(**changes):
    split = split_params(num_bench=2, num_rl=2)
    rest = {
        "min_face_score": 0.5,
        "detection_size": 64,
        "reference_size": 32,
        "captioner_size": 40,
        "records_per_shard": 2,
        "attributes": ["hair", "age"],
        "describe": "people",
        "num_people": 2,
    }
    return PairsParams(**(rest | {"split": split, "prompt": SENTENCE} | changes))


class OneFacePerBlob:
    """Finds a face for every pixel column that is pure red."""

    def faces(self, picture):
        columns = np.flatnonzero((picture == (255, 0, 0)).all(axis=2).any(axis=0))
        boxes = np.array([[x - 4, 4, x + 4, 12] for x in columns], np.float32).reshape(-1, 4)
        marks = np.zeros((len(boxes), 5, 2), np.float32)
        return Faces(boxes, np.ones(len(boxes), np.float32), marks, np.ones((len(boxes), 4), np.float32) / 2)


class Writer:
    """Answers from a list, and remembers how it was asked."""

    def __init__(self, *answers):
        self.answers = answers
        self.seeds = []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        assert len(pictures) == 2
        assert "2 pictures" in instruction
        assert (temperature, max_tokens) == (SENTENCE.temperature, SENTENCE.max_tokens)
        self.seeds.append(seed)
        return self.answers[(len(self.seeds) - 1) % len(self.answers)]


class Limit:
    """A text encoder that reads so many words."""

    def __init__(self, words=100):
        self.words = words

    def lost(self, text):
        return " ".join(text.split()[self.words :])


def written(*answers, words=100):
    return PromptWriter(Writer(*answers), Limit(words))


GOOD = "two people: a person with a hat; a person with glasses"


@pytest.mark.parametrize("draw", ["random", "even"])
def test_the_papers_pool_makes_the_papers_numbers(draw):
    split = split_pairs(POOL, split_params(draw=draw), {})
    assert len(all_pairs(POOL)) == len({frozenset(pair) for pair in all_pairs(POOL)}) == 12720
    assert len(set(split.bench)) == 1000
    assert len(set(split.rl)) == 11720
    assert not set(split.bench) & set(split.rl)
    appearances = [sum(face in pair for pair in split.bench) for face in POOL]
    assert np.mean(appearances) == 12.5
    assert (set(appearances) == {12, 13}) == (draw == "even")


@pytest.mark.parametrize("draw", ["random", "even"])
def test_identity_split_holds_out_46_faces_and_never_trains_on_them(draw):
    split = split_pairs(POOL, split_params("identity", draw=draw), LABELS)
    held_out = {face for pair in split.bench for face in pair}
    trained = {face for pair in split.rl for face in pair}
    assert num_held_out(1000) == len(held_out) == 46
    assert comb(46, 2) == 1035
    assert len(split.bench) == 1000
    assert len(split.rl) == comb(114, 2) == 6441
    assert not held_out & trained
    assert not {face for pair in split.reserve for face in pair} & trained
    assert len(split.reserve) == 35


def test_an_even_draw_keeps_the_attributes_of_the_pool():
    for attribute in ("gender", "age"):
        pool_counts = counts(attribute, POOL, LABELS)
        gaps = {}
        for kind in ("pair", "identity"):
            split = split_pairs(POOL, split_params(kind), LABELS)
            gaps[kind] = largest_gap(counts(attribute, [f for pair in split.bench for f in pair], LABELS), pool_counts)
        assert gaps["pair"] < 0.005
        assert gaps["identity"] < 0.015
    chosen = balanced_faces(POOL[:10], LABELS, 5, np.random.default_rng(0))
    assert counts("gender", chosen, LABELS) == {"man": 3, "woman": 2}
    assert sorted(balanced_faces(POOL[:10], {}, 10, np.random.default_rng(0))) == POOL[:10]


def test_attributes_are_counted_and_nothing_is_invented():
    labels = {"a": {"hair": "brown"}, "b": {"hair": "red"}, "c": {}}
    composed = composition(["hair", "age"], labels, "abc", {"bench": [("a", "b"), ("a", "c")], "rl": [("b", "c")]})
    assert composed["hair"]["pool"] == {"brown": 1, "not given": 1, "red": 1}
    assert composed["hair"]["bench"] == {"brown": 2, "not given": 1, "red": 1}
    assert composed["hair"]["rl"] == {"not given": 1, "red": 1}
    assert composed["hair"]["evenness_of_pool"] == 1
    assert composed["hair"]["largest_gap_bench"] == pytest.approx(1 / 6, abs=1e-4)
    assert composed["age"]["pool"] == {"not given": 3}
    assert evenness({"x": 9, "y": 1}) == pytest.approx(0.469, abs=1e-3)


@pytest.mark.parametrize("kind", ["pair", "identity"])
def test_split_depends_on_the_seed_but_not_on_the_order_of_faces(kind):
    params = split_params(kind, num_bench=30, num_rl=40)
    split = split_pairs(POOL[:20], params, LABELS)
    assert split_pairs(POOL[19::-1], params, LABELS) == split
    assert split_pairs(POOL[:20], split_params(kind, num_bench=30, num_rl=40, seed=1), LABELS) != split
    assert not set(split.bench) & set(split.rl)
    assert len(set(split.bench)) == 30
    assert len(set(split.rl)) == 40


def test_too_few_faces_are_told_with_what_to_do():
    with pytest.raises(ValueError, match=r"3 pairs.*asks for 4.*lower num_bench"):
        split_pairs(POOL[:3], split_params(num_bench=4), {})
    with pytest.raises(ValueError, match="leaves none for reinforcement"):
        split_pairs(POOL[:3], split_params(num_bench=3), {})
    with pytest.raises(ValueError, match="leaves none for reinforcement"):
        split_pairs(POOL[:4], split_params("identity", num_bench=3), {})
    with pytest.raises(ValueError, match=r"1 pairs.*asks for 3"):
        split_pairs(POOL[:2], split_params("identity", num_bench=3), {})


def test_more_faces_can_be_held_out_than_the_pairs_need():
    params = split_params("identity", num_bench=24).model_copy(update={"num_faces": 16})
    split = split_pairs(POOL[:40], params, {})
    held_out = Counter(face for pair in split.bench for face in pair)
    assert len(split.bench) == 24
    assert len(held_out) == 16
    assert set(held_out.values()) == {3}
    assert not held_out.keys() & {face for pair in split.rl for face in pair}


def test_bad_prompts_are_asked_for_again_with_another_seed_of_the_pair():
    writer = written("a person alone", GOOD)
    prompt = prompt_of(("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 2, writer, pairs_params())
    assert prompt.prompt == GOOD
    assert prompt.names == ("a", "b")
    assert writer.captioner.seeds == list(attempt_seeds("a+b", SENTENCE))[:2]
    assert len({*attempt_seeds("a+b", SENTENCE), *attempt_seeds("a+c", SENTENCE)}) == 6


def test_a_prompt_that_the_generator_would_cut_is_asked_for_again_or_dropped_by_name():
    longer = GOOD + " and with a long red coat"
    references = [np.zeros((8, 8, 3), np.uint8)] * 2
    writer = written(longer, GOOD, words=len(GOOD.split()))
    assert prompt_of(("a", "b"), references, writer, pairs_params()).prompt == GOOD
    assert len(writer.captioner.seeds) == 2
    with pytest.raises(RejectionError, match="does not see 'and with a long red coat'") as caught:
        prompt_of(("a", "b"), references, written(longer, words=len(GOOD.split())), pairs_params())
    assert caught.value.reason == "caption_cut"


def test_a_prompt_of_the_form_scene_says_nothing_of_faces():
    telling = "two people: a person with a beard and red hair; a person with glasses"
    writer = written(telling, GOOD)
    params = pairs_params(describe="scene")
    assert prompt_of(("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 2, writer, params).prompt == GOOD
    assert len(writer.captioner.seeds) == 2, "one trait of a person is a cue, two are a description"
    with pytest.raises(RejectionError) as caught:
        prompt_of(("a", "b"), [np.zeros((8, 8, 3), np.uint8)] * 2, written(telling), params)
    assert caught.value.reason == "caption_describes_people"


def test_a_pair_without_a_usable_prompt_is_dropped_by_name_and_replaced_in_the_benchmark(tmp_path):
    pool = {name: np.zeros((8, 8, 3), np.uint8) for name in "abcd"}
    report = Report("pairs")
    writer = written(GOOD, *["I cannot describe people"] * 3, *[GOOD] * 3)
    split = Split(bench=[("a", "b"), ("a", "c")], rl=[("b", "d"), ("c", "d")], reserve=[("a", "d"), ("b", "d")])
    chosen = write_prompts(split, pool, writer, tmp_path, report, pairs_params())
    assert chosen == {"bench": [("a", "b"), ("a", "d")], "rl": [("b", "d"), ("c", "d")]}
    assert [record.key for record in read_shards(tmp_path / "bench")] == ["a+b", "a+d"]
    assert report.summary()["dropped"] == {"caption_refusal": 1}
    assert reason_of(prompt_of, ("a", "b"), [pool["a"]] * 2, written("no"), pairs_params()) == "caption_too_short"


def test_a_pair_that_stands_in_is_not_trained_on(tmp_path):
    pool = {name: np.zeros((8, 8, 3), np.uint8) for name in "abc"}
    split = Split(bench=[("a", "b")], rl=[("a", "c"), ("b", "c")], reserve=[("b", "c"), ("a", "c")])
    params = pairs_params(split=split_params(num_bench=2, num_rl=2))
    chosen = write_prompts(split, pool, written(GOOD), tmp_path, Report("pairs"), params)
    assert chosen == {"bench": [("a", "b"), ("b", "c")], "rl": [("a", "c")]}


def test_every_file_has_a_row_kept_or_dropped_by_name(tmp_path):
    """Pictures of any ending and in subfolders count; of two that differ in their ending the second is dropped."""
    for name, columns in {
        "one.png": [16], "one.webp": [16], "two.bmp": [16], "sub/one.tiff": [16], "J\u00fcrg+1.gif": [16],
        "none.png": [], "several.png": [8, 24], "no_ending": [16],
    }.items():  # fmt: skip
        picture = scene(0, 32, 32)[0]
        picture[:, 16] = (0, 0, 0)
        picture[8, columns] = (255, 0, 0)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lossless = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(picture).save(tmp_path / name, **lossless, format="PNG" if name == "no_ending" else None)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "faces.csv").write_text("file,hair\none.png,brown\nsub/one.tiff,red\n", encoding="utf-8")
    pool, labels = write_faces(tmp_path, OneFacePerBlob(), tmp_path / "out", pairs_params())
    faces = {face.key: face for face in read_shards(tmp_path / "out", PoolFace)}
    assert list(pool) == list(faces) == ["J\u00fcrg%2B1", "no_ending", "one", "sub%2Fone", "two"]
    assert faces["one"].reference.shape == (32, 32, 3)
    assert pool["one"].shape == (40, 40, 3)
    assert faces["sub%2Fone"].description == {"file": "sub/one.tiff", "attributes": {"hair": "red"}}
    assert labels == {
        "one": {"hair": "brown"},
        "sub%2Fone": {"hair": "red"},
        "J\u00fcrg%2B1": {},
        "no_ending": {},
        "two": {},
    }
    report = read_report(tmp_path / "out")
    assert (report["seen"], report["kept"]) == (11, 5)
    assert {row["key"]: row["reason"] for row in report["rejections"]} == {
        "broken.png": "unreadable", "gone.png": "not_a_file", "none.png": "no_face", "notes.txt": "not_a_picture",
        "one.webp": "same_name", "several.png": "several_faces",
    }  # fmt: skip


def test_a_pool_without_a_usable_face_is_refused_with_the_reasons_counted(tmp_path):
    Image.fromarray(scene(0, 32, 32)[0]).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    with pytest.raises(ValueError, match="shows exactly one face: 1 no_face, 1 not_a_picture"):
        write_faces(tmp_path, OneFacePerBlob(), tmp_path / "out", pairs_params())


def test_pictures_are_taken_as_people_see_them(tmp_path):
    """The stage reads with `mcpipe.models.images`, where the kinds of files are tested."""
    turned = Image.fromarray(scene(0, 40, 32)[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    seen = []

    class Watcher:
        def faces(self, picture):
            seen.append(picture)
            return Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)), np.zeros((0, 4)))

    portrait = Portrait(tmp_path / "turned.png", "turned.png", "turned")
    assert reason_of(face_of, portrait, Watcher(), pairs_params()) == "no_face"
    assert np.array_equal(seen[0], np.rot90(np.asarray(turned), -1))
