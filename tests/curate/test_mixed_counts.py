"""Two to four people in one run: clips of the world, curation, samples, groups of the benchmark, tables."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from imports import ROOT
from record_fixtures import frame_pair, reason_of
from training_fixtures import ENCODE

from mcpipe.bench.by_number import means_by_number, number_lines
from mcpipe.bench.intervals import Interval
from mcpipe.bench.pairs import SplitParams, split_groups, split_pairs
from mcpipe.bench.tables import METRICS, ArmScores, as_metrics, from_metrics, text_table
from mcpipe.core.params import PeopleRange, people_numbers, read_params
from mcpipe.core.schemas.curation import ClipCaption, ClipPeople, CutSample, Sample, VerifiedIdentity
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.curate.samples import SamplesParams
from mcpipe.curate.subjects import SubjectsParams, check_people, check_same_number
from mcpipe.flux.encode import encoded_sample
from mcpipe.steps.samples import sample_of
from mcpipe.train.loop.data import as_tokens, collate
from mcpipe.world.clips import KINDS, WorldParams, clip_specs, film_with_truth
from mcpipe.world.identities import world_rng

RANGE = PeopleRange(min=2, max=4)
WORLD = read_params(ROOT / "params.yaml", "world", WorldParams).model_copy(
    update={"num_people": RANGE, "good_clips": 12, "bad_clips_per_kind": 1, "width": 320, "height": 320}
)
SAMPLES = read_params(ROOT / "params.yaml", "samples", SamplesParams).model_copy(
    update={"image_size": 32, "reference_size": 16}
)

SLACK_PX = 8
"""How far a head at the side may reach over the edge of the frame."""


def script_of(spec, params=WORLD):
    return KINDS[spec.kind](world_rng("mixed", spec.number), spec.number, params)


def good_clips():
    return {spec.number: script_of(spec) for spec in clip_specs(WORLD) if spec.kind == "good"}


def test_clips_of_the_world_show_every_number_of_people_with_every_face_in_view():
    numbers = Counter()
    for script in good_clips().values():
        ((_, scene),) = script(0.0)
        numbers[len(scene.people)] += 1
        frame = film_with_truth(script, 0.0, WORLD)
        for person in frame.people:
            assert person.face_visible > 0.8, "nobody hides another one's face"
            assert person.face_box[0] >= -SLACK_PX
            assert person.face_box[2] <= WORLD.width + SLACK_PX
    assert set(numbers) == {2, 3, 4}
    crowd = next(spec for spec in clip_specs(WORLD) if spec.kind == "three_people")
    assert len(script_of(crowd)(0.0)[0][1].people) == 5, "one more than is allowed"
    usual = WORLD.model_copy(update={"num_people": 2})
    assert len(script_of(crowd, usual)(0.0)[0][1].people) == 3
    assert len(script_of(replace(crowd, kind="good"), usual)(0.0)[0][1].people) == 2


def test_one_person_is_no_fault_where_one_is_enough():
    kinds = {spec.kind for spec in clip_specs(WORLD.model_copy(update={"num_people": PeopleRange(min=1, max=2)}))}
    assert "one_person" not in kinds
    assert {spec.kind for spec in clip_specs(WORLD)} == set(KINDS)


@pytest.mark.parametrize(
    ("number", "reason"), [(1, "too_few_people"), (2, None), (3, None), (4, None), (5, "too_many_people")]
)
def test_numbers_outside_the_range_are_refused(number, reason):
    params = read_params(ROOT / "params.yaml", "subjects", SubjectsParams).model_copy(update={"num_people": RANGE})
    boxes = np.tile(np.array([[0, 0, 20, 90]], np.float32), (number, 1))
    assert reason_of(check_people, boxes, 100, params) == reason


def test_frames_with_unequal_numbers_and_ranges_in_disorder_are_refused():
    assert reason_of(check_same_number, 3, 2) == "number_changes"
    assert reason_of(check_same_number, 3, 3) is None
    assert (people_numbers(2), people_numbers(RANGE)) == (range(2, 3), range(2, 5))
    with pytest.raises(ValueError, match="min 4 is above max 2"):
        PeopleRange(min=4, max=2)
    with pytest.raises(ValueError, match="at most 4 people"):
        WorldParams(**WORLD.model_dump() | {"num_people": 5})


def sample(number, script):
    """A sample with the truth in the place of every model's answer."""
    frame = film_with_truth(script, 0.0, WORLD)
    people, key = len(frame.people), f"clip_{number}"
    masks = np.stack([frame.labels == person + 1 for person in range(people)])
    boxes = np.stack([person.box for person in frame.people]).astype(np.float32)
    faces = np.stack([person.face_box for person in frame.people]).astype(np.float32)
    joints = np.stack([person.keypoints for person in frame.people]).astype(np.float32)
    both = {"boxes": boxes, "masks": masks, "faces": faces, "joints": joints, "embeddings": np.eye(people, 8)}
    both = {name: np.stack([values, values]) for name, values in both.items()}
    subjects = ClipPeople(key=key, scores={}, boxes=both["boxes"], keypoints=both["joints"], masks=both["masks"])
    identity = VerifiedIdentity(
        key=key, recogniser="truth", scores={}, order=np.arange(people), face_boxes=both["faces"],
        landmarks=np.zeros((2, people, 5, 2), np.float32), embeddings=both["embeddings"].astype(np.float32),
    )  # fmt: skip
    captions = ClipCaption(key=key, caption=f"{people} people", attempts=1, closeup_captions=("",) * people)
    return sample_of(frame_pair(key, frame.rgb), subjects, identity, captions, SAMPLES)


def test_samples_of_all_numbers_stand_in_one_folder_and_in_one_batch(generator, tmp_path):
    chosen = {}
    for number, script in good_clips().items():
        chosen.setdefault(len(script(0.0)[0][1].people), (number, script))
    cut = [sample(*chosen[people]) for people in (2, 3, 4)]
    assert all(isinstance(each, CutSample) for each in cut)
    named = [Sample(**vars(each), names=("x",) * len(each.references), split="train") for each in cut]
    write_shards(named, tmp_path, 2)
    stored = sorted(read_shards(tmp_path, Sample), key=lambda each: len(each.references))
    assert [len(each.masks) for each in stored] == [2, 3, 4]
    assert all(each.masks.any((1, 2)).all() for each in stored)
    tokens = [as_tokens(encoded_sample(generator, each, ENCODE)) for each in stored]
    batch = collate([(each, torch.zeros_like(each.clean), torch.tensor(0.5)) for each in tokens], torch.device("cpu"))
    assert batch.conditions.present.tolist() == [[True] * 2 + [False] * 2, [True] * 3 + [False], [True] * 4]
    assert batch.masks.any(-1).tolist() == batch.conditions.present.tolist()


POOL = [f"face_{i:02d}" for i in range(16)]


@pytest.mark.parametrize("split", ["pair", "identity"])
@pytest.mark.parametrize("draw", ["random", "even"])
def test_groups_of_every_number_are_disjoint_and_as_many_as_wanted(split, draw):
    params = SplitParams(split=split, draw=draw, num_bench=10, num_faces=6, num_rl=12, seed=0)
    groups = split_groups(POOL, params, {}, range(2, 5))
    assert Counter(map(len, groups.bench)) == {2: 4, 3: 3, 4: 3}
    assert Counter(map(len, groups.rl)) == {2: 4, 3: 4, 4: 4}
    assert not {*groups.bench} & {*groups.rl}
    assert not {*groups.bench} & {*groups.reserve}
    for group in (*groups.bench, *groups.rl, *groups.reserve):
        assert list(group) == sorted(set(group))
    if split == "identity":
        held_out = {face for group in (*groups.bench, *groups.reserve) for face in group}
        assert len(held_out) <= 6
        assert not held_out & {face for group in groups.rl for face in group}
    assert groups == split_groups(POOL[::-1], params, {}, range(2, 5)), "the pool's order does not matter"


def test_pairs_alone_are_drawn_as_ever_and_a_small_pool_is_refused():
    params = SplitParams(split="pair", draw="even", num_bench=10, num_faces=None, num_rl=12, seed=0)
    assert split_groups(POOL, params, {}, range(2, 3)) == split_pairs(POOL, params, {})
    assert len(list(combinations(POOL[:4], 4))) == 1
    with pytest.raises(ValueError, match="make 1 groups of 4, but the benchmark asks for 3"):
        split_groups(POOL[:4], params, {}, range(2, 5))


def test_scores_stand_by_number_of_people_only_where_there_are_several():
    scores = [dict.fromkeys(METRICS, value) | {"overall": None} for value in (0.2, 0.4, 0.9)]
    table = means_by_number([2, 2, 4], scores, METRICS)
    assert table["2"]["face_sim"] == pytest.approx(0.3)
    assert (table["2"]["num_images"], table["4"]["num_images"]) == (2, 1)
    assert "overall" not in table["4"]
    assert means_by_number([3, 3, 3], scores, METRICS) == {}
    means = dict.fromkeys(METRICS, Interval(0.5, 0.4, 0.6))
    arm = ArmScores("train_rl", means, 3, by_number=table)
    again = from_metrics("train_rl", as_metrics(arm))
    assert again.by_number == table
    assert number_lines({"train_rl": table}, {"face_sim": "Face-Sim"}, ["face_sim"])[2].split()[-1] == "0.300"
    assert "by number of people" in text_table([again])
    assert "by_number" not in as_metrics(ArmScores("train_rl", means, 3))
