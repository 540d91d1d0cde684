"""A trainable LoRA on SDXL's attention; without it the network is the reference of preference training.

It is written in the format of diffusers, so that ``load_lora_weights`` of a stock pipeline reads it. The IP-Adapter's
own projections stay as they are: the paper trains a LoRA of rank 32 and does not say where.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from mcpipe.flux.added_lora import ADDED
from mcpipe.sdxl.backbone import StableDiffusionXLPipeline, UNet2DConditionModel

TARGETS = r".*transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
"""Layers with a LoRA (those of diffusers' training of SDXL): self- and cross-attention of every block."""


def add_lora(unet: UNet2DConditionModel, rank: int, seed: int) -> None:
    """Freeze a UNet and add a fresh LoRA that does not change what it computes yet."""
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(config, ADDED)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(f".{ADDED}." in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_lora(unet: UNet2DConditionModel, folder: Path, gathered: Mapping[str, Tensor]) -> None:
    """Write the LoRA, whose weights ``gathered`` holds by name, into a folder that exists."""
    state = get_peft_model_state_dict(unet, state_dict=dict(gathered), adapter_name=ADDED)
    layers = convert_state_dict_to_diffusers({name: weight.cpu() for name, weight in state.items()})
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=layers)
