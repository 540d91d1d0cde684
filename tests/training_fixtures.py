"""Short trainings on a random tiny generator."""

import pytest
import torch
from safetensors.numpy import load_file

from mcpipe.flux.adapters import ExpertParams
from mcpipe.flux.encode import EncodeParams
from mcpipe.train.loop import checkpoint
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.multi import IdarParams, TrainMultiParams
from mcpipe.train.single import TrainSingleParams

SUPERVISED = {
    "seed": 0, "num_steps": 4, "batch_size": 2, "learning_rate": 1e-3, "weight_decay": 0.01, "max_grad_norm": 1.0,
    "shift": 1.5, "guidance": 1.0, "text_dropout": 0.1, "ema_decay": 0.0, "pictures_every": 0,
}  # fmt: skip
SINGLE = TrainSingleParams(**SUPERVISED, rank=4, positions="unope", start=None)
EXPERTS = ExpertParams(num_experts=4, top_k=1, router="st")
MULTI = TrainMultiParams(
    **SUPERVISED, idar=IdarParams(weight=0.3, norm="max"), experts=EXPERTS, shuffle_references=False,
    balance_weight=0.01,
)  # fmt: skip
ENCODE = EncodeParams(min_mask_fraction=0.5, cache_texts=True, records_per_shard=4)


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
    from stages import s06_encode

    folder = tmp_path_factory.mktemp("encoded") / "encode"
    s06_encode.run(samples, generator_folder, folder, ENCODE)
    return folder


@pytest.fixture(scope="session")
def stage_one(tmp_path_factory, encoded, generator_folder):
    """The output of ``train_single``."""
    from stages import s07_train_single

    folder = tmp_path_factory.mktemp("one") / "train_single"
    s07_train_single.run(encoded, generator_folder, folder, SINGLE)
    return folder


def files_of(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def outcome(folder):
    """Curves and weights, by their names."""
    lines = {file.stem: file.read_text(encoding="utf-8").splitlines()[1:] for file in (folder / "live").rglob("*.tsv")}
    curves = {name: [float(line.split("\t")[1]) for line in some] for name, some in lines.items()}
    weights = {f"{file.stem}.{key}": w for file in folder.glob("*.safetensors") for key, w in load_file(file).items()}
    return curves, weights


class Ones:
    """Batches of a single 1; without a checkpoint to go on from."""

    can_resume = True

    def __init__(self, num):
        self.num = num

    def __iter__(self):
        for _ in range(self.num):
            yield torch.ones(1, 1)

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        raise AssertionError(f"there is no checkpoint, but {state_dict} was loaded")


class Killed(BaseException):
    """Ends a run as a signal does: nothing that is meant to handle errors sees it."""


@pytest.fixture
def killed_at(monkeypatch):
    """Let checkpoints be written after every step, and runs end at one."""
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
