"""Cost of a FocusDPO step beside plain supervised training, on a random FLUX of the paper's proportions.

    python benchmarks/dpo.py [--blocks 2 4] [--repeats 7]

Everything is given per image: a pair has two. A supervised step is one pass with its backward pass; a preference step
adds the reference's pass, which has none. Masks are what FocusDPO does beyond DPO: hooks, match, fusion, their curves.

Steps of two kinds differ by more from one run to the next than masks take, so that masks have a stopwatch of their own
within the step. Steps of all kinds take turns; a ratio is that of one turn, and its median stands between the lowest
and the highest. Operations of matrix products are counted, which no other process disturbs.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import torch
from flux_step import MIB, PROPORTIONED
from torch.utils.flop_counter import FlopCounterMode

from mcpipe.flux import features
from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.added_lora import add_lora
from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.train.preference import losses
from mcpipe.train.preference.data import PairBatch
from mcpipe.train.preference.params import Arm, FocusParams, PreferenceParams

RANK = 32
PARAMS = PreferenceParams(
    num_steps=1, batch_size=1, rank=RANK, beta=1000.0, form="velocity", preset="default",
    learning_rates={"default": 1e-5}, weight_decay=0.0, max_grad_norm=1.0,
    focus=FocusParams(tau=0.1, gamma=0.3, norm="cosine", reduction="mask"), shift=1.0, guidance=1.0,
    shuffle_references=False,
)  # fmt: skip
MOST_FORWARDS = 2.1
"""Passes per image of a preference step."""
MOST_MASKS = 0.03
"""Share of a FocusDPO step that its masks may take."""


def random_network(double: int, single: int) -> ReferenceFlux:
    """A FLUX with a start adapter and an added LoRA."""
    heads, layout = PROPORTIONED["heads"], PROPORTIONED["layout"]
    flux = FluxTransformer2DModel(
        num_layers=double, num_single_layers=single, num_attention_heads=heads, joint_attention_dim=128 * heads,
        guidance_embeds=True,
    )  # fmt: skip
    spec = AdapterSpec(rank=PROPORTIONED["rank"], experts=None, image_size=512, reference_size=320)
    add_adapter(flux, spec, seed=0)
    add_lora(flux, RANK, seed=0)
    return ReferenceFlux(flux, layout, 1.0)


def random_pair(network: ReferenceFlux) -> PairBatch:
    """A pair with two references."""
    layout, heads = network.layout, PROPORTIONED["heads"]
    tokens = layout.num_image_tokens
    prior = torch.zeros(1, 2, tokens, dtype=torch.bool)
    prior[:, 0, : tokens // 8] = prior[:, 1, -tokens // 8 :] = True
    conditions = Conditions(
        torch.randn(1, PROPORTIONED["text"], 128 * heads), torch.randn(1, 768),
        torch.randn(1, 2, layout.num_reference_tokens, 64), torch.ones(1, 2, dtype=torch.bool),
    )  # fmt: skip
    images = torch.randn(3, 1, tokens, 64)
    weights = torch.rand(2, 1, tokens)
    return PairBatch(images[0], images[1], images[2], torch.full((1,), 0.5), conditions, prior, weights[0], weights[1])


P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Adds up the processor time of this thread within some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, act: Callable[P, R]) -> Callable[P, R]:
        """The function, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.thread_time()
            try:
                return act(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - start

        return timed

    @contextmanager
    def on_masks(self) -> Iterator[None]:
        """Within this context all that FocusDPO does beyond DPO is timed."""
        scorer, mean = features._scorer, features.MatchScores.mean
        with (
            patch.object(features, "_scorer", lambda *args: self.around(scorer(*args))),
            patch.object(features.MatchScores, "mean", self.around(mean)),
            patch.object(losses, "focused", self.around(losses.focused)),
            patch.object(losses, "focus_metrics", self.around(losses.focus_metrics)),
        ):
            yield


@dataclass(frozen=True)
class Figure:
    """A measured quantity, once or per turn, with its demanded limit if there is one."""

    name: str
    values: Sequence[float]
    limit: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the median keeps to the limit."""
        return self.limit is None or statistics.median(self.values) <= self.limit

    def __str__(self) -> str:
        spread = f"{min(self.values):>10.4g} to {max(self.values):<10.4g}" if len(self.values) > 1 else ""
        aim = "" if self.limit is None else f"at most {self.limit:g}: {'met' if self.is_met else 'missed'}"
        return f"{self.name:<42}{statistics.median(self.values):>10.4g}{spread:<24} {aim}".rstrip()


class Steps:
    """Steps of every arm on one pair, without their optimiser."""

    def __init__(self, blocks: tuple[int, int]) -> None:
        self.network = random_network(*blocks)
        self._pair = random_pair(self.network)

    def take(self, arm: Arm) -> None:
        """Loss and gradient of an arm."""
        terms = losses.preference_losses(self.network, self.network, self._pair, arm, PARAMS).terms
        torch.stack(list(terms.values())).sum().backward()
        self.network.zero_grad(set_to_none=True)

    def seconds(self, arm: Arm) -> float:
        """Processor time of a step on one thread."""
        start = time.thread_time()
        self.take(arm)
        return time.thread_time() - start

    def passes(self, arm: Arm) -> float:
        """Passes of the network per image of the pair."""
        seen: list[int] = []
        handle = self.network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        self.take(arm)
        handle.remove()
        return sum(seen) / 2

    def operations(self, arm: Arm) -> int:
        """Floating-point operations of a step's matrix products."""
        with FlopCounterMode(display=False) as counter:
            self.take(arm)
        return counter.get_total_flops()


def measure(blocks: tuple[int, int], repeats: int) -> list[Figure]:
    """Passes and times per image, the share of masks, and the memory of trained weights."""
    steps, turns, masks = Steps(blocks), [], []
    passes = steps.passes("focus_dpo")
    dpo_operations, focus_operations = steps.operations("dpo"), steps.operations("focus_dpo")
    for _ in range(repeats):
        watch = Stopwatch()
        sft, dpo = steps.seconds("sft"), steps.seconds("dpo") / 2
        with watch.on_masks():
            focus = steps.seconds("focus_dpo") / 2
        turns.append((sft, dpo, focus))
        masks.append(watch.seconds / 2 / focus)
    sft, dpo, focus = zip(*turns, strict=True)
    weights = [weight for weight in steps.network.parameters() if weight.requires_grad]
    return [
        Figure("passes per image", [passes], MOST_FORWARDS),
        Figure("supervised step per image, s", sft),
        Figure("DPO step per image, s", dpo),
        Figure("FocusDPO step per image, s", focus),
        Figure("DPO over supervised, per image", [own / plain for plain, own, _ in turns]),
        Figure("FocusDPO over supervised, per image", [own / plain for plain, _, own in turns]),
        Figure("FocusDPO over DPO, per image", [own / plain for _, plain, own in turns]),
        Figure("masks, share of a FocusDPO step's time", masks, MOST_MASKS),
        Figure("masks, share of its matrix products", [1 - dpo_operations / focus_operations], MOST_MASKS),
        Figure(
            "weights beside the frozen ones, MiB", [sum(each.numel() * each.element_size() for each in weights) / MIB]
        ),
    ]


def main() -> int:
    """Print the figures; returns 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs=2, default=(2, 4), help="double and single blocks (2 4)")
    parser.add_argument("--repeats", type=int, default=7, help="turns behind a median (7)")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    figures = measure(tuple(options.blocks), options.repeats)
    for figure in figures:
        sys.stdout.write(f"{figure}\n")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
