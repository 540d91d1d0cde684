"""Where work is done changes nothing but the time it takes; what goes wrong with an item refuses that item alone."""

import os
from importlib.util import find_spec

import pytest
from cheap_work import Cheap, CheapParams, Number, content, write
from imports import ROOT

from mcpipe.core.records import Record
from mcpipe.core.report import read_report
from mcpipe.core.shards import StoredItems, read_shards
from mcpipe.execution.fingerprint import fingerprint

NUMBERS = [Number(f"n{i:02d}", i) for i in range(1, 13)]
ON_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed, see docs/cluster.md")


@pytest.fixture
def work(tmp_path):
    model = tmp_path / "model"
    model.write_text("weights")
    return Cheap(CheapParams(factor=3, records_per_shard=4), model, str(tmp_path / "log"))


@pytest.fixture
def log(tmp_path):
    """Reads what was done since the last reading, without the loading of models."""

    def read():
        file = tmp_path / "log"
        lines = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if line != "load"]

    return read


def choose(monkeypatch, engine, workers=1, seconds=20.0):
    monkeypatch.setenv("MCPIPE_ENGINE", engine)
    monkeypatch.setenv("MCPIPE_WORKERS", str(workers))
    monkeypatch.setenv("MCPIPE_CLIP_SECONDS", str(seconds))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")  # for Ray's own processes


@pytest.mark.parametrize(("engine", "workers"), [("pool", 1), ("pool", 2), pytest.param("ray", 2, marks=ON_RAY)])
def test_all_engines_write_the_same_bytes(work, tmp_path, monkeypatch, engine, workers):
    items = [*NUMBERS, Number("boom", 1), Number("ö \n", 13)]
    choose(monkeypatch, "inline")
    write(work, items, tmp_path / "a" / "out")
    write(work, StoredItems((tmp_path / "a" / "out", Record)), tmp_path / "a" / "next")
    choose(monkeypatch, engine, workers)
    write(work, items, tmp_path / "b" / "out")
    write(work, StoredItems((tmp_path / "b" / "out", Record)), tmp_path / "b" / "next")
    for out in ("out", "next"):
        assert content(tmp_path / "a" / out) == content(tmp_path / "b" / out)
    assert len(list(read_shards(tmp_path / "b" / "next"))) == 11


def test_an_exception_refuses_one_item(work, tmp_path):
    report = write(work, [Number("boom", 1), *NUMBERS], tmp_path / "out")
    assert report.rejections[0] == {"key": "boom", "reason": "failed", "detail": "RuntimeError: no number"}
    assert len(report.kept) == 10
    fifth = read_report(tmp_path / "out")["rejections"][1]
    assert fifth == {"key": "n05", "reason": "fifth", "detail": "5", "scores": {"value": 5}}


def test_a_hang_refuses_one_item(work, tmp_path, monkeypatch):
    choose(monkeypatch, "inline", seconds=0.3)
    report = write(work, [Number("hang", 1), Number("n", 1)], tmp_path / "out")
    assert report.rejections == [{"key": "hang", "reason": "timed_out", "detail": "took over 0.3 s"}]
    assert report.kept == ["n"]


def test_a_crash_and_a_hang_cost_their_own_item_only(work, tmp_path, monkeypatch, log):
    choose(monkeypatch, "pool", workers=2, seconds=1.0)
    items = [*NUMBERS[:4], Number("die", 1), Number("hang", 1), *NUMBERS[5:]]
    report = write(work, items, tmp_path / "out")
    assert {r["key"]: r["reason"] for r in report.rejections} == {"die": "crashed", "hang": "timed_out", "n10": "fifth"}
    assert sorted(log()) == sorted(item.key for item in items)
    choose(monkeypatch, "inline")
    write(work, [item for item in items if item.key != "hang" and item.key != "die"], tmp_path / "out")
    assert log() == []


@pytest.mark.parametrize("engine", ["inline", "pool", pytest.param("ray", marks=ON_RAY)])
def test_a_missing_model_stops_the_run(work, tmp_path, monkeypatch, engine):
    choose(monkeypatch, engine)
    work.model.unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="no model"):
        write(work, NUMBERS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ENGINE", "cluster"), ("WORKERS", "0"), ("WORKERS", "1.5"), ("WORKERS", "two"), ("CLIP_SECONDS", "nan")],
)
def test_a_senseless_environment_is_named(work, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(f"MCPIPE_{variable}", value)
    with pytest.raises(ValueError, match=f"MCPIPE_{variable} should be .*{value}"):
        write(work, NUMBERS, tmp_path / "out")


def test_only_what_is_new_is_computed(work, tmp_path, log):
    out = tmp_path / "out"
    write(work, NUMBERS, out)
    assert log() == [item.key for item in NUMBERS]
    before = content(out)
    write(work, NUMBERS, out)
    assert log() == []
    assert content(out) == before

    more = [*NUMBERS, Number("z1", 21), Number("z2", 22)]
    write(work, more, out)
    assert log() == ["z1", "z2"]
    fewer = [item for item in more if item.key != "n03"]
    write(work, fewer, out)
    assert log() == []
    assert "n03" not in [record.key for record in read_shards(out)]
    write(work, [Number("n01", 99), *fewer[1:]], out)
    assert log() == ["n01"], "its content changed"

    fresh = tmp_path / "fresh" / "out"
    write(work, [Number("n01", 99), *fewer[1:]], fresh)
    assert content(fresh) == content(out)


def test_what_a_run_does_not_use_is_deleted_and_what_is_damaged_is_computed_again(work, tmp_path, log):
    out = tmp_path / "out"
    write(work, [*NUMBERS, Number("z", 21)], out)
    (folder,) = (tmp_path / ".progress" / "out").iterdir()
    assert len(list(folder.iterdir())) == 13
    write(work, NUMBERS, out)
    entries = sorted(folder.iterdir())
    assert len(entries) == 12
    log()
    before = content(out)
    damaged = bytearray(entries[0].read_bytes())
    damaged[-700] ^= 1
    entries[0].write_bytes(damaged)
    entries[1].write_bytes(entries[1].read_bytes()[:50])
    entries[2].write_bytes(b"")
    write(work, NUMBERS, out)
    assert len(log()) == 3
    assert content(out) == before


def test_settings_models_and_code_make_the_fingerprint(work, tmp_path, log):
    def changed(**values):
        return Cheap(**{"params": work.params, "model": work.model, "log": work.log, **values})

    first = fingerprint(work, ("numpy",))
    assert fingerprint(changed(params=CheapParams(factor=3, records_per_shard=5)), ("numpy",)) == first
    assert fingerprint(changed(params=CheapParams(factor=4, records_per_shard=4)), ("numpy",)) != first
    assert fingerprint(work, ("numpy", "scipy")) != first
    moved = tmp_path / "moved"
    moved.write_text("weights")
    assert fingerprint(changed(model=moved), ("numpy",)) == first, "what counts is the content"
    work.model.write_text("other weights")
    assert fingerprint(work, ("numpy",)) != first

    write(work, NUMBERS, tmp_path / "out")
    log()
    write(changed(params=CheapParams(factor=4, records_per_shard=4)), NUMBERS, tmp_path / "out")
    assert len(log()) == len(NUMBERS)
    assert len(list((tmp_path / ".progress" / "out").iterdir())) == 1
