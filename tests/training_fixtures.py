"""Short trainings on a random tiny generator."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.numpy import load_file

from mcpipe.flux.adapters import ExpertParams
from mcpipe.flux.encode import EncodeParams
from mcpipe.objectives.idar import IdarScope, NoiseRange
from mcpipe.train.multi import BalanceParams, IdarParams, TrainMultiParams
from mcpipe.train.single import TrainSingleParams

SUPERVISED = {
    "seed": 0, "num_steps": 4, "batch_size": 2, "learning_rate": 1e-3, "weight_decay": 0.01, "max_grad_norm": 1.0,
    "shift": 1.5, "guidance": 1.0, "text_dropout": 0.1, "ema_decay": 0.0, "pictures_every": 0, "processes": 1,
}  # fmt: skip
SINGLE = TrainSingleParams(**SUPERVISED, rank=4, positions="unope", start=None)
EXPERTS = ExpertParams(num_experts=4, top_k=1, router="st")
MULTI = TrainMultiParams(
    **SUPERVISED, idar=IdarParams(weight=0.3, norm="max", direction="reference_to_image"), experts=EXPERTS,
    shuffle_references=False, balance=BalanceParams(weight=0.01, over="batch"),
    scope=IdarScope(blocks=None, noise=NoiseRange(min=0.0, max=1.0), start=0.0),
)  # fmt: skip
ENCODE = EncodeParams(min_mask_fraction=0.5, cache_texts=True, records_per_shard=4)

NEEDS_BITSANDBYTES = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install -e '.[lowmem]'"
)


def files_of(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def outcome(folder):
    """Curves and weights, by their names."""
    lines = {file.stem: file.read_text(encoding="utf-8").splitlines()[1:] for file in (folder / "live").rglob("*.tsv")}
    curves = {name: [float(line.split("\t")[1]) for line in some] for name, some in lines.items()}
    weights = {f"{file.stem}.{key}": w for file in folder.glob("*.safetensors") for key, w in load_file(file).items()}
    return curves, weights


def divide_by_no_small_gradient(monkeypatch, trainer):
    """Give the AdamW of a module an epsilon near the size of the gradients.

    Adam divides by the gradient's size: one as small as its rounding error, which depends on processor and threads,
    would move a weight by anything up to the learning rate in either direction.
    """

    def adamw(runtime, weights, learning_rate, weight_decay):
        return torch.optim.AdamW(list(weights), lr=learning_rate, weight_decay=weight_decay, eps=1e-3)

    monkeypatch.setattr(trainer, "adamw", adamw)


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
