"""Curation of clips of four people with the tiny zoo, from the frames to captions and samples."""

import json

import pytest
from imports import ROOT

from mcpipe.cli.curate import curate, read_settings
from mcpipe.core.params import read_params
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.captions import SUBJECT
from mcpipe.world.clips import WorldParams
from stages import s00_world

PEOPLE, GOOD, SIDE = 4, 6, 320
SETTINGS = ROOT / "params.yaml"


@pytest.fixture(scope="module")
def crowds(tmp_path_factory):
    """The folder of curated clips, their funnel, and the kind of every clip by file name."""
    data = tmp_path_factory.mktemp("crowds")
    world = {"seed": 977, "good_clips": GOOD, "bad_clips_per_kind": 1, "faces": 1, "seconds": 1.0}
    shots = {"num_people": PEOPLE, "width": SIDE, "height": SIDE}
    params = read_params(SETTINGS, "world", WorldParams).model_copy(update=world | shots)
    s00_world.run(data / "clips", data / "faces", data / "truth", params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCPIPE_ENGINE", "inline")
        rows = curate(data / "clips", data / "out", read_settings(SETTINGS, [f"subjects.num_people={PEOPLE}"]))
    clips = [json.loads(file.read_text(encoding="utf-8")) for file in (data / "truth").glob("*.json")]
    return data / "out", rows, {clip["clip"]: clip["kind"] for clip in clips}


def test_clips_of_four_people_are_kept_and_no_bad_clip_is(crowds):
    _, rows, kinds = crowds
    kept = [kinds[row["clip"]] for row in rows if row["accepted"]]
    assert set(kept) == {"good"}
    assert len(kept) >= 0.5 * GOOD


def test_their_samples_show_and_name_four_people(crowds):
    out, _, _ = crowds
    samples = list(read_shards(out / "samples", Sample))
    assert samples
    for sample in samples:
        assert len(sample.references) == len(sample.masks) == PEOPLE
        assert sample.masks.any(axis=(1, 2)).all()
        assert sample.caption.startswith("four people")
        assert len(SUBJECT.findall(sample.caption)) == PEOPLE
