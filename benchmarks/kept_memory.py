"""What it saves that the C library keeps freed memory: python benchmarks/kept_memory.py [--repeats N] [--json FILE].

Both sides draw with the zoo's generator, sixteen images a pass, on one thread. They take turns in processes of their
own, since the setting cannot be taken back; a ratio is that of one turn. Page faults are counted by the system.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from mcpipe.core.allocation import keep_freed_memory
from mcpipe.core.offline import stay_offline
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import layout

GENERATOR = Path("zoo/generator")
NUM_IMAGES, NUM_PEOPLE, NUM_WORDS, NUM_PASSES = 16, 2, 64, 10
IMAGE_SIZE, REFERENCE_SIZE, GUIDANCE = 96, 48, 4.0


def passes(*, kept: bool) -> tuple[float, float]:
    """Milliseconds and page faults of one pass."""
    if kept:
        keep_freed_memory()
    stay_offline()
    torch.set_num_threads(1)
    pipeline = load_generator(GENERATOR)
    network = ReferenceFlux(pipeline.transformer, layout(pipeline, IMAGE_SIZE, REFERENCE_SIZE), GUIDANCE)
    tokens, width = network.state_shape
    config = pipeline.transformer.config
    conditions = Conditions(
        torch.randn(NUM_IMAGES, NUM_WORDS, config.joint_attention_dim),
        torch.randn(NUM_IMAGES, config.pooled_projection_dim),
        torch.randn(NUM_IMAGES, NUM_PEOPLE, network.layout.num_reference_tokens, width),
        torch.ones(NUM_IMAGES, NUM_PEOPLE, dtype=torch.bool),
    )
    noisy, t = torch.randn(NUM_IMAGES, tokens, width), torch.full((NUM_IMAGES,), 0.5)
    with torch.inference_mode():
        network(noisy, t, conditions)
        faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        for _ in range(NUM_PASSES):
            network(noisy, t, conditions)
        seconds = time.perf_counter() - start
    return 1000 * seconds / NUM_PASSES, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / NUM_PASSES


def apart(*, kept: bool) -> tuple[float, float]:
    """The same in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(passes, kept=kept).result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both sides and their ratio; returns the exit status."""
    parser = argparse.ArgumentParser(prog="kept_memory", description="passes with and without keeping freed memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    turns = [(apart(kept=False), apart(kept=True)) for _ in range(options.repeats)]
    ratios = [returned[0] / kept[0] for returned, kept in turns]
    sides = {
        "returned": {
            "ms": statistics.median(r[0] for r, _ in turns),
            "faults": statistics.median(r[1] for r, _ in turns),
        },
        "kept": {"ms": statistics.median(k[0] for _, k in turns), "faults": statistics.median(k[1] for _, k in turns)},
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }
    for side in ("returned", "kept"):
        print(f"memory {side:<9}{sides[side]['ms']:8.1f} ms{sides[side]['faults']:10.0f} page faults a pass")
    print("kept is {median:.2f} times as fast ({lowest:.2f} to {highest:.2f})".format(**sides["ratio"]))
    if options.json:
        options.json.write_text(json.dumps(sides, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
