"""Typed records: the bytes that older code wrote, and what is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
from record_fixtures import frame_pair, generated, pair_prompt, pool_face, sample_of_two

from mcpipe.core.packing import pack
from mcpipe.core.records import Record, RecordError
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.schemas.curation import (
    ClipCaption,
    ClipPeople,
    CutSample,
    FramePair,
    Sample,
    VerifiedIdentity,
    with_split,
)
from mcpipe.core.schemas.training import EmptyText, EncodedSample
from mcpipe.core.shards import StoredItems, read_shards, write_shards

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8)
SQUARES = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
MASKS = RNG.random((2, 8, 10)) > 0.5
NUMBERS = RNG.normal(size=(2, 2, 17, 3)).astype(np.float32)
SAMPLE = {
    "target": IMAGE,
    "body_masks": MASKS,
    "masks": MASKS,
    "references": SQUARES,
    "portraits": SQUARES,
    "closeups": np.stack([IMAGE, IMAGE]),
    "closeup_masks": MASKS,
}
ALONE = {"closeup_captions": ["one", ""]}
LATENTS = {
    "latents": NUMBERS[0],
    "reference_latents": NUMBERS,
    "masks": MASKS,
    "body_masks": MASKS,
    "closeup_latents": NUMBERS,
    "closeup_masks": MASKS,
}
TEXT = {"prompt_embeds": NUMBERS[0, 0], "pooled": NUMBERS[0, 0, 0]}
CLOSEUP_TEXT = {"closeup_prompt_embeds": NUMBERS[0], "closeup_pooled": NUMBERS[0, :, 0]}
SIZES = {"image_size": 8, "reference_size": 4}

# Each kind with a record as stages write it.
STORED = {
    FramePair: Record(
        "a",
        {"clip": "a.mp4", "times_s": [0.0, 1.5], "num_frames": 9, "codec": "h264", "picture_px": [0, 0, 10, 8]}
        | {"duration_s": 3.0, "softness": 0.25},
        {"initial": IMAGE, "middle": IMAGE},
    ),
    ClipPeople: Record(
        "a",
        {"people": [2.0, 2.0], "people_found": [2.0, 3.0], "mask_fill": [0.5, 0.5], "mask_overlap": [0.0, 0.0]},
        {"boxes": NUMBERS[..., 0, :2].repeat(2, axis=-1), "keypoints": NUMBERS, "masks": np.stack([MASKS, MASKS])},
    ),
    VerifiedIdentity: Record(
        "a",
        {"recogniser": "puppet", "face_px": [40.0] * 4, "similarity": [0.9, 0.8], "margin": 0.5},
        {
            "order": np.array([1, 0]),
            "face_boxes": NUMBERS[:, :, :4, 0],
            "landmarks": NUMBERS[:, :, :5, :2],
            "embeddings": NUMBERS[..., 0],
        },
    ),
    ClipCaption: Record("a", {"caption": "zwei Menschen, \u00fc", "attempts": 2} | ALONE),
    CutSample: Record(
        "a", {"caption": "two", "provenance": {"clip": "a.mp4", "window_px": [0, -1, 8]}} | ALONE, SAMPLE
    ),
    Sample: Record(
        "a",
        {"caption": "two", "provenance": {"clip": "a.mp4", "versions": {"av": "1"}}}
        | {"names": ["person-00000", "person-00001"], "split": "val"}
        | ALONE,
        SAMPLE,
    ),
    EncodedSample: Record("a", {"caption": "two", "split": "train", **SIZES, **ALONE}, LATENTS | TEXT | CLOSEUP_TEXT),
    EmptyText: Record("_empty", {}, TEXT),
    PoolFace: Record(
        "a",
        {"file": "a.png", "attributes": {"hair": "red", "age": None}},
        {
            "reference": SQUARES[0],
            "closeup": SQUARES[1],
            "embedding": NUMBERS[0, 0, :, 0],
            "landmarks": NUMBERS[0, 0, :5, :2],
        },
    ),
    PairPrompt: Record("a+b", {"prompt": "two", "names": ["a", "b"]}),
    GeneratedImage: Record("a+b", {"prompt": "two", "names": ["a", "b"], "seed": 3}, {"image": IMAGE}),
}


def test_what_stages_write_is_read_and_written_byte_by_byte():
    for kind, stored in STORED.items():
        packed = pack(stored)
        typed = kind.from_record(packed.record())
        assert pack(typed.to_record()) == packed, kind.__name__
    without_text = Record("a", STORED[EncodedSample].meta, LATENTS)
    assert pack(EncodedSample.from_record(without_text).to_record()) == pack(without_text)


def test_a_cut_sample_becomes_a_sample_without_being_decoded():
    versions = {"av": "1", "mcpipe": "2"}
    cut = CutSample.from_record(STORED[CutSample])
    packed = with_split(pack(cut.to_record()), ["p", "q"], "val", versions)
    sample = Sample.from_record(packed.record())
    assert (sample.names, sample.split, sample.clip) == (("p", "q"), "val", "a.mp4")
    assert sample.provenance == {**cut.provenance, "versions": versions}
    with pytest.raises(RecordError, match="sample a: 'provenance' should be a mapping, found None"):
        with_split(pack(Record("a", {}, SAMPLE)), [], "val", versions)


def changed(kind, meta=(), arrays=(), without=()):
    """A stored record with other entries."""
    record = STORED[kind]
    both = ({**record.meta, **dict(meta)}, {**record.arrays, **dict(arrays)})
    return Record(record.key, *({name: part[name] for name in part if name not in without} for part in both))


def test_records_of_another_kind_are_refused_by_record_field_and_remedy():
    faults = {
        "frames of clip a: lacks 'clip', 'middle'; run again what writes it, the stage frames": (
            FramePair, changed(FramePair, without=("clip", "middle"))
        ),
        "face a: lacks 'landmarks'; run again what writes it, the stage pairs": (
            PoolFace, changed(PoolFace, without=("landmarks",))
        ),
        "prompt a.b: has unknown fields 'seed'": (PairPrompt, changed(PairPrompt, {"seed": 3})),
        "image a.b: has unknown fields 'mask'": (GeneratedImage, changed(GeneratedImage, arrays={"mask": MASKS})),
        "image a.b: 'seed': Input should be a valid integer, found '3'": (
            GeneratedImage, changed(GeneratedImage, {"seed": "3"})
        ),
        "sample a: 'split': .*'train' or 'val', found 'test'": (Sample, changed(Sample, {"split": "test"})),
        r"sample a: 'names\.1': .*string, found 1": (Sample, changed(Sample, {"names": ["p", 1]})),
        "clip a: 'scores.softness.*': .*number, found 'soft'": (FramePair, changed(FramePair, {"softness": "soft"})),
        r"'target' should be a UInt8 array of shape \(height width 3\), found float32 of shape \(17 3\)": (
            Sample, changed(Sample, arrays={"target": NUMBERS[0, 0]})
        ),
        r"'image' should be a UInt8 array .*found uint8 of shape \(8 10\)": (
            GeneratedImage, changed(GeneratedImage, arrays={"image": IMAGE[..., 0]})
        ),
        r"'reference' should be .*\(reference reference 3\), found uint8 of shape \(8 10 3\)": (
            PoolFace, changed(PoolFace, arrays={"reference": IMAGE})
        ),
        "encoded sample a: 'masks' has 1 references where 'reference_latents' has 2": (
            EncodedSample, changed(EncodedSample, arrays={"masks": MASKS[:1]})
        ),
        "sample a: .*masks' has 9 width where 'target' has 10": (
            Sample, changed(Sample, arrays={"masks": MASKS[..., :9]})
        ),
        "sample a: 'body_masks' has no subjects": (
            Sample, changed(Sample, arrays={name: array[:0] for name, array in SAMPLE.items() if name != "target"})
        ),
    }  # fmt: skip
    for message, (kind, record) in faults.items():
        with pytest.raises(RecordError, match=message) as caught:
            kind.from_record(record)
        assert "\n" not in str(caught.value)


def test_shards_of_another_kind_are_named(tmp_path):
    prompt = pair_prompt("two people", "a", "b")
    write_shards([prompt, generated(replace(prompt, key="b+c"), IMAGE)], tmp_path, 1)
    with pytest.raises(RecordError, match=r"shard-00001\.tar: prompt b\+c: has unknown fields 'image', 'seed'; run"):
        list(read_shards(tmp_path, PairPrompt))
    first, second = StoredItems((tmp_path, PairPrompt), (tmp_path, Record))
    assert [type(record) for record in first.inputs()] == [PairPrompt, Record]
    with pytest.raises(RecordError, match=r"shard-00001\.tar"):
        second.inputs()


def test_typed_records_of_the_fixtures_are_what_is_read(tmp_path):
    made = [
        frame_pair("a", IMAGE),
        sample_of_two("b", IMAGE, MASKS, SQUARES),
        pool_face("c", SQUARES[0]),
        pair_prompt("two", "a", "b"),
        generated(pair_prompt("two", "a", "b"), IMAGE),
    ]
    for record in made:
        stored = pack(record.to_record())
        assert pack(type(record).from_record(stored.record()).to_record()) == stored
        assert json.loads(stored.members["meta.json"]) == stored.meta
