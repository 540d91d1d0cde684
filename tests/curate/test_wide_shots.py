"""Curation of wide shots: two people apart from each other and from the middle of frames of 2.35:1."""

import json

import numpy as np
import pytest
from imports import ROOT

from mcpipe.cli.curate import curate, read_settings
from mcpipe.core.params import read_params
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.windows import HEAD_MARGIN
from mcpipe.world.clips import WorldParams
from stages import s00_world

WIDTH, HEIGHT, GOOD = 564, 240, 6
SETTINGS = ROOT / "params.yaml"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The folder of curated wide shots, their funnel, and the truth by file name."""
    data = tmp_path_factory.mktemp("wide")
    world = {"seed": 977, "good_clips": GOOD, "bad_clips_per_kind": 1, "faces": 1}
    shots = {"shots": "wide", "width": WIDTH, "height": HEIGHT}
    params = read_params(SETTINGS, "world", WorldParams).model_copy(update=world | shots)
    s00_world.run(data / "clips", data / "faces", data / "truth", params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCPIPE_ENGINE", "inline")
        rows = curate(data / "clips", data / "out", read_settings(SETTINGS, []))
    clips = [json.loads(file.read_text(encoding="utf-8")) for file in (data / "truth").glob("*.json")]
    return data / "out", {row["clip"]: row for row in rows}, {clip["clip"]: clip for clip in clips}


def test_wide_shots_are_kept_and_no_bad_clip_is(wide):
    _, rows, truth = wide
    kept = [truth[name]["kind"] for name, row in rows.items() if row["accepted"]]
    assert set(kept) == {"good"}
    assert len(kept) >= 0.8 * GOOD
    assert not any(row["reason"] == "no_square_holds_all" for row in rows.values())


def test_faces_that_fit_into_a_square_are_shown_without_a_border(wide):
    out, _, truth = wide
    inside = 0
    for sample in read_shards(out / "samples", Sample):
        faces = np.array([person["face_box"] for person in truth[sample.clip]["middle"]])
        low, high = faces[:, :2].min(axis=0), faces[:, 2:].max(axis=0)
        margin = (HEAD_MARGIN - 0.8) * (faces[:, 2:] - faces[:, :2]).max()
        x, y, side = sample.provenance["window_px"]
        assert x <= low[0] + margin
        assert x + side >= high[0] - margin
        assert sample.masks.any(axis=(1, 2)).all()
        if high[0] - low[0] + margin < HEIGHT:
            inside += 1
            assert y >= 0
            assert side <= HEIGHT
    assert inside >= 2


def test_wide_shots_need_wide_frames():
    params = read_params(SETTINGS, "world", WorldParams)
    with pytest.raises(ValueError, match="16:9 or wider, not 240 x 240"):
        WorldParams.model_validate(params.model_dump() | {"shots": "wide"})
