"""Encoding in several processes."""

from processes import exit_code, forked
from training_fixtures import ENCODE, files_of

from stages import s06_encode


def test_two_processes_encode_the_same_bytes_as_one(samples, encoded, generator_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MCPIPE_WORKERS", "2")
    stage = forked(s06_encode.run, samples, generator_folder, tmp_path / "encode", ENCODE)
    stage.start()
    assert exit_code(stage) == 0
    assert files_of(tmp_path / "encode") == files_of(encoded)
