"""What attention regularisation and experts cost: arithmetic, memory and time, beside slower ways to the same result.

    python benchmarks/training.py [--json FILE] [--device cuda] [--blocks 19 38] [--tokens 4096] [--rounds 9]
    python benchmarks/training.py --compile [--device cuda] [--rounds 9]

The second form compares a step whose blocks inductor compiled with the same step as it is written, and nothing else. A
C++ compiler has to be there; its first call takes minutes, later ones find its results in inductor's cache.

Arithmetic and bytes are counted, the same on every machine: on the device ``meta``, with the kernels that a GPU runs,
at the width of FLUX.1-dev, with 512 text tokens, 32 x 32 of the image and two references of 20 x 20. Times are those
of this process on one thread, or of the GPU, taken in turns; their medians are compared. The exit status is 1 if a
demand is not met.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from flux_step import FULL, MIB, PROPORTIONED, Row, Step, at_least, at_most
from peft import LoraConfig, inject_adapter_in_model
from slow_forms import (
    FLOPS,
    PeakBytes,
    dense_experts,
    kernels_of_a_gpu,
    looped_experts,
    naive_column_mean,
    naive_turned_column_mean,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mcpipe.flux import attention
from mcpipe.flux.adapters import ExpertParams, trainable
from mcpipe.flux.attention import AttentionCapture
from mcpipe.flux.moe_lora import MoELoraConfig, MoELoraLinear
from mcpipe.objectives import column_mean as idar

CI = (2048, 1024, 256, 2048)
"""Experts at a size for every machine: inputs, outputs, rank, tokens."""


def main() -> None:
    """Measure, print, and compare with the requirements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", help="where times are taken")
    parser.add_argument("--blocks", type=int, nargs=2, default=(2, 4), help="double and single ones of counted steps")
    parser.add_argument("--tokens", type=int, default=2048, help="of the experts at full width")
    parser.add_argument("--rounds", type=int, default=5, help="in which times are taken")
    parser.add_argument(
        "--compile", action="store_true", help="compare a step that inductor compiled, and nothing else"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, rounds = options.device, options.rounds
    sections = (
        lambda: expert_figures("ci", CI, 1.5, device, rounds),
        lambda: expert_figures("12288-3072", (12288, 3072, 512, options.tokens), 1.4, device, rounds),
        lambda: attention_times(device, rounds),
        lambda: step_share(device, rounds),
        lambda: counted_steps(*options.blocks),
    )
    if options.compile:
        sections = (lambda: compiled_step(device, rounds),)
    rows: list[Row] = []
    for section in sections:
        for name, value, limit, met in (checks := section()):
            verdict = "" if met is None else f"{limit:12.3f}  {'met' if met else 'NOT MET'}"
            print(f"{name:58}{value:14.3f}{verdict}", flush=True)
        rows += checks
    if options.json:
        checks = {name: {"value": value, "limit": limit, "met": met} for name, value, limit, met in rows}
        options.json.write_text(
            json.dumps({"device": options.device, "figures": checks}, indent=1) + "\n", encoding="utf-8"
        )
    sys.exit(any(met is False for *_, met in rows))


def counted_steps(num_double: int, num_single: int) -> list[Row]:
    """Arithmetic and peak bytes of steps at the width of FLUX.1-dev."""
    queries, keys = 2 * FULL["layout"].num_reference_tokens, FULL["layout"].num_image_tokens
    unit = 2 * queries * keys * 128 * FULL["heads"]
    rows: list[Row] = []
    for checkpointing, most in ((False, 4.05), (True, 5.05)):
        step = Step((num_double, num_single), FULL, "meta", torch.bfloat16)
        if checkpointing:
            step.flux.train()
            step.flux.enable_gradient_checkpointing()
        label = f"{num_double}+{num_single} blocks{', checkpointed' if checkpointing else ''}"
        flops, peaks = {}, {}
        for name in ("none", "naive", "ours"):
            step.flux.zero_grad(set_to_none=True)
            naive = patch("mcpipe.flux.attention.turned_column_mean", naive_turned_column_mean)
            inputs = (step.flux, step.noisy, step.text, step.references, step.pooled, step.t)
            counter = FlopCounterMode(display=False, custom_mapping=FLOPS)
            with naive if name == "naive" else nullcontext(), kernels_of_a_gpu():
                with counter:
                    step(name != "none")
                step.flux.zero_grad(set_to_none=True)
                with PeakBytes(*inputs) as memory:  # alone: the counter keeps what checkpointing would let go
                    step(name != "none")
            flops[name], peaks[name] = counter.get_total_flops(), memory.peak
        units = {name: (some - flops["none"]) / num_double / unit for name, some in flops.items()}
        more = {name: (some - peaks["none"]) / MIB for name, some in peaks.items()}
        rows += [
            (f"TFLOP of a step, {label}", flops["none"] / 1e12, None, None),
            (f"IDAR naive: matmuls per double block, {label}", units["naive"], None, None),
            at_most(f"IDAR ours: matmuls per double block, {label}", units["ours"], most),
            (f"peak MiB of a step, {label}", peaks["none"] / MIB, None, None),
            (f"IDAR naive: more peak MiB, {label}", more["naive"], None, None),
            at_most(f"IDAR ours: more peak MiB, {label}", more["ours"], 8.0),
        ]
    return rows


def attention_times(device: str, rounds: int) -> list[Row]:
    """The maps of one block of FLUX.1-dev, forward and backward."""
    layout, heads = FULL["layout"], FULL["heads"]
    sizes = [layout.num_reference_tokens] * 2
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    queries = torch.randn(1, sum(sizes), heads, 128, device=device, dtype=dtype, requires_grad=True)
    keys = torch.randn(1, layout.num_image_tokens, heads, 128, device=device, dtype=dtype, requires_grad=True)
    forms = {
        "naive": lambda: naive_column_mean(queries, keys, sizes),
        "chunked": lambda: idar.column_mean(queries, keys, sizes, "chunked"),
        "sdpa": lambda: idar.column_mean(queries, keys, sizes, "sdpa"),
    }
    steps = {name: lambda form=form: form().square().sum().backward() for name, form in forms.items()}
    taken = timed(steps, (queries, keys), device, rounds)
    kept = {}
    for name, form in forms.items():
        with PeakBytes(queries, keys) as memory:
            out = form()
        kept[name] = (memory.now - out.untyped_storage().nbytes()) / MIB
    ours = "chunked" if device == "cpu" else "sdpa"
    return [
        *((f"IDAR {name}: ms of one block's maps", 1000 * taken[name], None, None) for name in forms),
        at_least("IDAR: times faster than naive, one block", taken["naive"] / taken[ours], 1.5),
        ("IDAR naive: MiB kept for the backward pass, one block", kept["naive"], None, None),
        at_most("IDAR ours: MiB kept for the backward pass, one block", kept[ours], 0.1),
    ]


def step_share(device: str, rounds: int) -> list[Row]:
    """Time inside the maps' own code as a part of the rest of the same step."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    step = Step((2, 4), PROPORTIONED, device, dtype)
    way = attention._TurnedColumnMean
    inside = [0.0]

    def clocked(function: Callable) -> staticmethod:
        def run(*arguments: object) -> object:
            start = now(device)
            out = function(*arguments)
            inside[0] += now(device) - start
            return out

        return staticmethod(run)

    shares = []
    with patch.object(way, "forward", clocked(way.forward)), patch.object(way, "backward", clocked(way.backward)):
        step(True)
        for _ in range(rounds):
            inside[0], start = 0.0, now(device)
            step(True)
            shares.append(100 * inside[0] / (now(device) - start - inside[0]))
    return [at_most("IDAR ours: % of a proportioned step", statistics.median(shares), 1.5)]


def compiled_step(device: str, rounds: int) -> list[Row]:
    """Loss, gradients and time of a step with experts and maps, its blocks compiled, against the same step eagerly."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    step = Step((1, 1), PROPORTIONED, device, dtype, ExpertParams(num_experts=4, top_k=1, router="st"))
    weights = trainable(step.flux)
    with torch.no_grad():
        for weight in weights.values():
            weight.normal_(std=0.02)  # fresh ones add nothing: B = 0
    outcomes, taken = [], []
    for compiled in (False, True):
        with AttentionCapture(step.flux, step.layout) as capture:
            if compiled:
                step.flux.compile_repeated_blocks(fullgraph=True, backend="inductor")
            step.flux.zero_grad(set_to_none=True)
            start = time.perf_counter()
            loss = step.captured(capture)
            first = time.perf_counter() - start
            outcomes.append((float(loss), torch.cat([weight.grad.flatten() for weight in weights.values()])))
            form = {"step": lambda capture=capture: step.captured(capture)}
            taken.append(timed(form, list(weights.values()), device, rounds)["step"])
    (loss, gradient), (other, compiled_gradient) = outcomes
    most = 100.0 if device == "cpu" else 20_000.0  # float32 and bfloat16
    apart = float((compiled_gradient - gradient).norm() / gradient.norm())
    return [
        at_most("inductor: loss apart from eager, millionths", 1e6 * abs(other - loss) / abs(loss), most),
        at_most("inductor: gradient apart from eager, millionths", 1e6 * apart, most),
        ("inductor: seconds of the first step", first, None, None),
        ("eager: ms of a step", 1000 * taken[0], None, None),
        ("inductor: ms of a step", 1000 * taken[1], None, None),
        ("inductor: times faster than eager", taken[0] / taken[1], None, None),
    ]


def expert_figures(label: str, size: tuple[int, int, int, int], most: float, device: str, rounds: int) -> list[Row]:
    """A layer's LoRA alone, without the frozen layer: forward, and gradients of inputs, experts and router."""
    inputs, outputs, rank, tokens = size
    base = nn.Linear(inputs, outputs, bias=False, device=device)
    layer = MoELoraLinear(base, "default", MoELoraConfig(num_experts=4, top_k=1, router="st"), rank, rank)
    layer.to(device)
    gate, a, b = (part["default"].weight for part in (layer.lora_router, layer.lora_A, layer.lora_B))
    down, up = a.unflatten(0, (4, -1)), b.unflatten(1, (4, -1))
    x = torch.randn(tokens, inputs, device=device, requires_grad=True)
    slanted = torch.randn(tokens, inputs, device=device) + 2 * gate[0].detach() / gate[0].detach().norm()
    slanted.requires_grad_()
    theirs = nn.Sequential(nn.Linear(inputs, outputs, bias=False, device=device))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"]), theirs)
    plain = theirs[0]
    forms = {
        "plain": lambda: plain.lora_B["default"](plain.lora_A["default"](x)) * plain.scaling["default"],
        "dense": lambda: dense_experts(x, gate, down, up),
        "looped": lambda: looped_experts(x, gate, down, up),
        "ours": lambda: layer._experts("default", x[None])[0],
        "ours, uneven": lambda: layer._experts("default", slanted[None])[0],
    }
    flops = {}
    for name, form in forms.items():
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            form().sum().backward()
        flops[name] = counter.get_total_flops()
    steps = {name: lambda form=form: form().sum().backward() for name, form in forms.items()}
    weights = (x, slanted, gate, a, b, *(weight for weight in plain.parameters() if weight.requires_grad))
    taken = timed(steps, weights, device, rounds)
    router = 6 * tokens * inputs * 4
    times = {name: some / taken["plain"] for name, some in taken.items()}
    faster = {name: times[name] / times["ours"] for name in ("dense", "looped")}
    wide = inputs > 10_000  # where it is demanded
    return [
        (f"experts {label}: ms of plain LoRA", 1000 * taken["plain"], None, None),
        (f"experts {label} dense: times plain LoRA", times["dense"], None, None),
        (f"experts {label} looped: times plain LoRA", times["looped"], None, None),
        at_most(f"experts {label} ours: times plain LoRA", times["ours"], most),
        at_most(f"experts {label} ours: uneven against even", times["ours, uneven"] / times["ours"], 1.1),
        at_least(f"experts {label} ours: times faster than dense", faster["dense"], 2.4 if wide else 1.0),
        at_least(f"experts {label} ours: times faster than looped", faster["looped"], 1.2 if wide else 1.0),
        at_most(f"experts {label} ours: FLOP of plain LoRA + router", flops["ours"] / (flops["plain"] + router), 1.01),
    ]


def timed(
    forms: dict[str, Callable[[], None]], weights: Sequence[Tensor], device: str, rounds: int
) -> dict[str, float]:
    """Median seconds of every form, taken in turns after one round that does not count.

    Each starts without gradients in ``weights``, as a training step does.
    """
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 1):
        for name, form in forms.items():
            for weight in weights:
                weight.grad = None
            start = now(device)
            form()
            taken[name].append(now(device) - start)
    return {name: statistics.median(some[1:]) for name, some in taken.items()}


def now(device: str) -> float:
    """Seconds of work done: of this process on a CPU; of the clock, all work awaited, on a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
