import json
import tarfile

import numpy as np
import pytest
from pydantic import Field

from mcpipe.core.params import Params, read_params
from mcpipe.core.records import Record, RejectionError, record_key
from mcpipe.core.report import Report, read_report
from mcpipe.core.shards import StoredItems, read_shards, whole_folder, write_shards
from mcpipe.execution.engine import kept


@pytest.fixture
def records():
    random = np.random.default_rng(0)
    return [
        Record(
            f"clip-{i}",
            {"clip": f"ä {i}.mp4", "times_s": [0.0, 1.5]},
            {
                "picture": random.integers(0, 256, (5, 7, 3), dtype=np.uint8),
                "pictures": random.integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8),
                "mask": random.random((5, 7)) > 0.5,
                "masks": random.random((2, 3, 5, 7)) > 0.5,
                "nobody": np.zeros((0, 5, 7), bool),
                "numbers": random.normal(size=(2, 4)).astype(np.float32),
            },
        )
        for i in range(5)
    ]


def test_records_come_back_as_they_were(tmp_path, records):
    assert write_shards(records, tmp_path / "a", per_shard=2) == 5
    back = list(read_shards(tmp_path / "a"))
    assert len(list((tmp_path / "a").glob("*.tar"))) == 3
    assert [r.key for r in back] == [r.key for r in records]
    for before, after in zip(records, back, strict=True):
        assert before.meta == after.meta
        for name, array in before.arrays.items():
            assert array.dtype == after.arrays[name].dtype
            np.testing.assert_array_equal(array, after.arrays[name])


def test_same_records_give_the_same_bytes(tmp_path, records):
    write_shards(records, tmp_path / "a", per_shard=9)
    shuffled = [Record(r.key, dict(reversed(r.meta.items())), dict(reversed(r.arrays.items()))) for r in records]
    write_shards(shuffled, tmp_path / "b", per_shard=9)
    name = "shard-00000.tar"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_join_keeps_the_keys_that_all_folders_have(tmp_path, records):
    write_shards(records, tmp_path / "a", per_shard=2)
    write_shards(records[1::2], tmp_path / "b", per_shard=1)
    write_shards(records[2:], tmp_path / "c", per_shard=9)
    assert [item.key for item in StoredItems(*((tmp_path / name, Record) for name in "abc"))] == ["clip-3"]


def test_join_of_an_unsorted_folder_is_an_error(tmp_path, records):
    write_shards(records[::-1], tmp_path / "a", per_shard=9)
    with pytest.raises(ValueError, match="sorted by key"):
        list(StoredItems((tmp_path / "a", Record)))


def test_missing_and_damaged_shards_are_named(tmp_path, records):
    with pytest.raises(FileNotFoundError, match="has the stage that writes it run"):
        list(read_shards(tmp_path / "none"))
    write_shards(records, tmp_path / "a", per_shard=9)
    shard = tmp_path / "a" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ValueError, match="shard-00000.tar is damaged"):
        list(read_shards(tmp_path / "a"))


def test_a_key_that_would_break_the_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dot or a slash"):
        write_shards([Record("a.b")], tmp_path / "a", per_shard=1)
    assert len({record_key(p) for p in ("a.b", "a/b", "a%2Eb", "a%2Fb")}) == 4
    write_shards([Record(record_key("a.b/ü x.mp4"))], tmp_path / "a", per_shard=1)
    assert next(read_shards(tmp_path / "a")).key == record_key("a.b/ü x.mp4")


def test_shards_follow_the_webdataset_layout(tmp_path, records):
    write_shards(records[:1], tmp_path / "a", per_shard=1)
    with tarfile.open(tmp_path / "a" / "shard-00000.tar") as shard:
        names = shard.getnames()
    assert "clip-0.meta.json" in names
    assert "clip-0.picture.png" in names
    assert all(name.startswith("clip-0.") for name in names)


def test_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"

    def fail():
        with whole_folder(out) as folder:
            (folder / "half").write_text("x")
            assert not out.exists()
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(out) as folder:
        (folder / "all").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "all"]


def test_every_item_is_kept_or_dropped_by_name(tmp_path):
    report = Report("odd")

    def decide(number):
        if number % 2:
            return Record(str(number))
        raise RejectionError("even", f"{number}")

    assert [r.key for r in kept([(str(i), i) for i in range(5)], 5, decide, report)] == ["1", "3"]
    report.write(tmp_path)
    summary = read_report(tmp_path)
    assert (summary["seen"], summary["kept"], summary["dropped"]) == (5, 2, {"even": 3})
    assert [r["key"] for r in summary["rejections"]] == ["0", "2", "4"]
    assert json.dumps(summary) == json.dumps(read_report(tmp_path))


class Inner(Params):
    size: int = Field(ge=1)


class Outer(Params):
    inner: Inner
    rate: float


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: {inner: {size: 2}, rate: 1.0, extra: 3}", r"a\.extra"),
        ("a: {inner: {size: 0}, rate: 1.0}", r"a\.inner\.size.*greater than or equal to 1.*got 0"),
        ("a: {inner: {size: 2}}", r"a\.rate.*required"),
        ("a: {inner: {size: two}, rate: 1.0}", r"a\.inner\.size.*integer"),
        ("b: {}", "no section 'a'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_settings_are_named_in_one_line(tmp_path, text, complaint):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_params(tmp_path / "params.yaml", "a", Outer)
    assert "\n" not in str(caught.value)


def test_good_settings_are_typed_and_frozen(tmp_path):
    (tmp_path / "params.yaml").write_text("a: {inner: {size: 2}, rate: 1}")
    params = read_params(tmp_path / "params.yaml", "a", Outer)
    assert params == Outer(inner=Inner(size=2), rate=1.0)
    with pytest.raises(ValueError, match="frozen"):
        params.rate = 2.0
