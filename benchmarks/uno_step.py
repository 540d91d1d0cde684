"""Cost of a training step that encodes images and texts itself, like UNO's, against a step with stored inputs.

UNO runs T5-XXL, CLIP and the VAE (the target and every reference) in every step, and always checkpoints all blocks. Its
layers with LoRA and ours are the same.

    python benchmarks/uno_step.py [--json FILE]

Arithmetic is counted at the size of FLUX.1-dev; steps are linear in the number
of blocks, so that two small ones give the large one.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from flux_step import FULL, Row, Step, at_most
from slow_forms import FLOPS, kernels_of_a_gpu
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

BLOCKS = 19
"""Double blocks of FLUX.1-dev; it has twice as many single ones."""
MOST = 1.0
"""Our step may take no more than UNO's."""


def encoder_figures() -> list[Row]:
    """Arithmetic of the encoders of one sample, and of UNO's step as a multiple of ours."""
    encoders = encoder_flops()
    ours = {kind: step_flops(checkpointing=kind == "checkpointed") for kind in ("not checkpointed", "checkpointed")}
    theirs = ours["checkpointed"] + sum(encoders.values())
    return [
        *((f"TFLOP of {name}, one sample", flops / 1e12, None, None) for name, flops in encoders.items()),
        *((f"TFLOP of our step, {kind}", flops / 1e12, None, None) for kind, flops in ours.items()),
        ("TFLOP of a step as UNO's: encoders inside, checkpointed", theirs / 1e12, None, None),
        *(at_most(f"our step, {kind}: times UNO's", flops / theirs, MOST) for kind, flops in ours.items()),
    ]


def encoder_flops() -> dict[str, int]:
    """Arithmetic of all encoders of UNO for one sample of two references."""
    with torch.device("meta"):
        t5 = T5EncoderModel(
            T5Config(
                vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
        clip = CLIPTextModel(
            CLIPTextConfig(projection_dim=768, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
        runs = {
            "T5-XXL": lambda: t5(torch.zeros(1, FULL["text"], dtype=torch.long)),
            "CLIP-L": lambda: clip(torch.zeros(1, 77, dtype=torch.long)),
            "the VAE's encoder": lambda: [vae.encode(torch.zeros(1, 3, side, side)) for side in (512, 320, 320)],
        }
        for encoder in (t5, clip, vae):
            assert isinstance(encoder, nn.Module)
            encoder.requires_grad_(False)
        flops = {}
        for name, run in runs.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                run()
            flops[name] = counter.get_total_flops()
    return flops


def step_flops(*, checkpointing: bool) -> int:
    """Arithmetic of a step of FLUX.1-dev without attention regularisation."""
    rows = []
    for num in (1, 2):
        step = Step((num, 2 * num), FULL, "meta", torch.bfloat16)
        if checkpointing:
            step.flux.train()
            step.flux.enable_gradient_checkpointing()
        counter = FlopCounterMode(display=False, custom_mapping=FLOPS)
        with kernels_of_a_gpu(), counter:
            step(regularised=False)
        rows.append(counter.get_total_flops())
    return rows[0] + (BLOCKS - 1) * (rows[1] - rows[0])


def main() -> None:
    """Count and print; with ``--json`` also write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = encoder_figures()
    for name, value, limit, met in rows:
        verdict = "" if met is None else f"{limit:12.3f}  {'met' if met else 'NOT MET'}"
        print(f"{name:58}{value:14.3f}{verdict}", flush=True)
    if options.json:
        figures = [dict(zip(("name", "value", "limit", "met"), row, strict=True)) for row in rows]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
