"""Outputs of stages on a random tiny generator.

Every process of a test run reads this file, also the one that only deals out tests: imports that take seconds are made
by the fixtures.
"""

import pytest


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """The output of ``samples``: six noisy ones, every third held out."""
    from flux_fixtures import make_samples

    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.fixture(scope="session")
def encoded(tmp_path_factory, samples, generator_folder):
    """The output of ``encode``."""
    from training_fixtures import ENCODE

    from stages import s06_encode

    folder = tmp_path_factory.mktemp("encoded") / "encode"
    s06_encode.run(samples, generator_folder, folder, ENCODE)
    return folder


@pytest.fixture(scope="session")
def stage_one(tmp_path_factory, encoded, generator_folder):
    """The output of ``train_single``."""
    from training_fixtures import SINGLE

    from stages import s07_train_single

    folder = tmp_path_factory.mktemp("one") / "train_single"
    s07_train_single.run(encoded, generator_folder, folder, SINGLE)
    return folder


@pytest.fixture(scope="session")
def short_stage_one(tmp_path_factory, encoded, short_generator_folder):
    """The output of ``train_single`` on the generator of two blocks; its encoders are those of the other."""
    from training_fixtures import SINGLE

    from stages import s07_train_single

    folder = tmp_path_factory.mktemp("short_one") / "train_single"
    s07_train_single.run(encoded, short_generator_folder, folder, SINGLE)
    return folder


@pytest.fixture
def killed_at(monkeypatch):
    """Let checkpoints be written after every step, and runs end at one."""
    from training_fixtures import Killed

    from mcpipe.train.loop import checkpoint
    from mcpipe.train.loop.checkpoint import Checkpoint

    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_OF_THE_TIME", float("inf"))
    write = Checkpoint.after

    def kill_at(last):
        def after(self, model, optimizer, batches, curves):
            write(self, model, optimizer, batches, curves)
            if last is not None and len(curves) == last:
                raise Killed

        monkeypatch.setattr(Checkpoint, "after", after)

    return kill_at
