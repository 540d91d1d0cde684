"""Cost of a FocusDPO step beside plain supervised training, on a random FLUX of the paper's proportions.

    python benchmarks/dpo.py [--blocks 2 4] [--repeats 3]

Everything is given per image: a pair has two. A supervised step is one pass with its backward pass; a preference step
adds the reference's pass, which has none. Masks are what FocusDPO does beyond DPO: hooks, match, fusion.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from flux_step import MIB, PROPORTIONED, Row, at_most

from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.added_lora import add_lora
from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.train.preference.data import PairBatch
from mcpipe.train.preference.losses import preference_losses
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


def median_seconds(act: Callable[[], object], repeats: int) -> float:
    """Median processor time of an act on one thread, after a first one that warms up."""
    act()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(blocks: tuple[int, int], repeats: int) -> list[Row]:
    """Passes and times per image, and the memory of trained weights."""
    network = random_network(*blocks)
    pair = random_pair(network)
    rows_seen: list[int] = []
    handle = network.register_forward_hook(lambda _, inputs, __: rows_seen.append(len(inputs[0])))

    def step(arm: Arm) -> None:
        losses = preference_losses(network, network, pair, arm, PARAMS)
        torch.stack(list(losses.terms.values())).sum().backward()
        network.zero_grad(set_to_none=True)

    rows_seen.clear()
    step("focus_dpo")
    passes = sum(rows_seen) / 2
    handle.remove()
    sft = median_seconds(lambda: step("sft"), repeats)
    dpo = median_seconds(lambda: step("dpo"), repeats) / 2
    focus = median_seconds(lambda: step("focus_dpo"), repeats) / 2
    trained = sum(weight.numel() * weight.element_size() for weight in network.parameters() if weight.requires_grad)
    return [
        at_most("passes per image", passes, MOST_FORWARDS),
        ("supervised step per image, s", sft, None, None),
        ("DPO step per image, s", dpo, None, None),
        ("FocusDPO step per image, s", focus, None, None),
        ("FocusDPO over supervised, per image", focus / sft, None, None),
        at_most("masks, share of a FocusDPO step", max(0.0, 1 - dpo / focus), MOST_MASKS),
        ("weights beside the frozen ones, MiB", trained / MIB, None, None),
    ]


def main() -> int:
    """Print the figures; returns 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs=2, default=(2, 4), help="double and single blocks (2 4)")
    parser.add_argument("--repeats", type=int, default=5, help="steps behind a median (5)")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = measure(tuple(options.blocks), options.repeats)
    for name, value, limit, is_met in rows:
        aim = "" if limit is None else f"   at most {limit:g}: {'met' if is_met else 'missed'}"
        sys.stdout.write(f"{name:<40}{value:>10.4g}{aim}\n")
    return 0 if all(row[3] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
