"""What training adds to the generator, and its files.

    pytorch_lora_weights.safetensors   plain LoRA, in the layout that diffusers and ComfyUI load
    multicrafter_experts.safetensors   experts and routers, under names that stock loaders leave alone; if any
    adapter.json                       rank, experts, sizes in pixels

Plain LoRA stands where UNO puts it: attention projections of all blocks and the output layer of single blocks.
Experts stand on the output layer of every feed-forward network, where in single blocks they replace the plain LoRA.
"""

from pathlib import Path

import torch
from peft import inject_adapter_in_model
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mcpipe.flux.backbone import FluxPipeline, FluxTransformer2DModel
from mcpipe.flux.moe_lora import MoELoraConfig, expert_layers
from mcpipe.objectives.moe import Router
from mcpipe.params import Params

PLAIN_FILE = "pytorch_lora_weights.safetensors"
EXPERTS_FILE = "multicrafter_experts.safetensors"
SPEC_FILE = "adapter.json"
NAME = "default"

PLAIN_MODULES = (
    r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_out)"
)
EXPERT_MODULES = r"transformer_blocks\.\d+\.ff(_context)?\.net\.2|single_transformer_blocks\.\d+\.proj_out"

ON_DISK = {"lora_A": "lora_moe_A", "lora_B": "lora_moe_B", "lora_router": "lora_moe_router"}
"""Names of the experts' parts in their file. Under peft's own names, stock loaders would silently add them up."""


class ExpertParams(Params):
    """Experts of a layer."""

    num_experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    """How many experts a token uses."""
    router: Router


class AdapterSpec(Params):
    """What an adapter is made of, and for which sizes it was trained."""

    rank: int = Field(ge=1)
    """Rank of every LoRA and of every single expert; alpha equals it (UNO, ICEdit), so that the scale is 1."""
    experts: ExpertParams | None
    image_size: int = Field(ge=1)
    """Side of a picture in pixels."""
    reference_size: int = Field(ge=1)
    """Side of a reference in pixels."""


def add_adapter(transformer: FluxTransformer2DModel, spec: AdapterSpec, seed: int) -> None:
    """Give the transformer a fresh trainable adapter, in float32, which does not change what it computes."""
    plain = PLAIN_MODULES if spec.experts is None else f"{PLAIN_MODULES}|{EXPERT_MODULES}"
    config = MoELoraConfig(
        r=spec.rank,
        lora_alpha=spec.rank,
        init_lora_weights="gaussian",
        target_modules=plain,
        expert_modules=EXPERT_MODULES if spec.experts else "",
        **(spec.experts.model_dump() if spec.experts else {}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, NAME)
    for parameter in trainable(transformer).values():
        parameter.data = parameter.data.float()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def save_adapter(transformer: FluxTransformer2DModel, spec: AdapterSpec, folder: Path) -> None:
    """Write an adapter's files into a folder that exists."""
    plain, experts = _weights(transformer)
    save_file({f"transformer.{key}": weight for key, weight in plain.items()}, folder / PLAIN_FILE)
    if experts:
        save_file({_on_disk(key): weight for key, weight in experts.items()}, folder / EXPERTS_FILE)
    (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=1) + "\n")


def read_spec(folder: Path) -> AdapterSpec:
    """What the adapter in a folder is made of.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: its description is damaged.
    """
    file = folder / SPEC_FILE
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that trains this adapter run?")
    try:
        return AdapterSpec.model_validate_json(file.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from error


def load_adapter(pipeline: FluxPipeline, folder: Path) -> AdapterSpec:
    """Put the adapter of a folder into a pipeline that has none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or does not fit this generator.
    """
    spec = read_spec(folder)
    start_adapter(pipeline, folder, spec, seed=0)
    return spec


def start_adapter(pipeline: FluxPipeline, folder: Path, spec: AdapterSpec, seed: int) -> None:
    """Give a pipeline an adapter of form ``spec`` that computes what the adapter in ``folder`` computes.

    A plain LoRA that gets experts becomes every one of them; experts that are new add nothing yet.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or does not fit this generator and form.
    """
    before = read_spec(folder)
    if before.experts is not None and before.experts != spec.experts:
        raise ValueError(f"{folder} has {before.experts}; it cannot go on with {spec.experts}")
    stored = {key.removeprefix("transformer."): weight for key, weight in _read(folder / PLAIN_FILE).items()}
    if before.experts is not None:
        stored |= {_in_memory(key): weight for key, weight in _read(folder / EXPERTS_FILE).items()}
    add_adapter(pipeline.transformer, spec, seed)
    if before.experts is None and spec.experts is not None:
        stored = _as_experts(pipeline.transformer, stored, spec.experts.num_experts)
    _fill(pipeline.transformer, stored, folder, complete=before.experts == spec.experts)


def _weights(transformer: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Plain and expert weights by their names without the adapter's name."""
    layers = tuple(f"{name}." for name, _ in expert_layers(transformer))
    plain, experts = {}, {}
    for name, parameter in trainable(transformer).items():
        place = experts if layers and name.startswith(layers) else plain
        place[name.replace(f".{NAME}.", ".")] = parameter.detach().cpu().contiguous()
    return plain, experts


def _as_experts(transformer: nn.Module, plain: dict[str, Tensor], num_experts: int) -> dict[str, Tensor]:
    layers = {name for name, _ in expert_layers(transformer)}
    stored = {}
    for key, weight in plain.items():
        layer, part, _ = key.rsplit(".", 2)
        copies = (num_experts, 1) if part == "lora_A" else (1, num_experts)
        stored[key] = weight.repeat(*copies) if layer in layers else weight
    return stored


def _fill(transformer: nn.Module, stored: dict[str, Tensor], folder: Path, complete: bool) -> None:
    """Copy stored weights into the adapter; ``complete`` if nothing of it may be left fresh."""
    parameters = {name.replace(f".{NAME}.", "."): parameter for name, parameter in trainable(transformer).items()}
    strange = sorted(set(stored) - set(parameters)) + (sorted(set(parameters) - set(stored)) if complete else [])
    strange += [key for key in stored if key in parameters and stored[key].shape != parameters[key].shape]
    if strange:
        raise ValueError(
            f"the adapter in {folder} does not fit this generator: {len(strange)} weights differ, first {strange[0]}"
        )
    for key, weight in stored.items():
        parameters[key].data.copy_(weight)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that trains this adapter run?")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _on_disk(key: str) -> str:
    layer, part, rest = key.rsplit(".", 2)
    return f"{layer}.{ON_DISK[part]}.{rest}"


def _in_memory(key: str) -> str:
    layer, part, rest = key.rsplit(".", 2)
    return f"{layer}.{ {disk: memory for memory, disk in ON_DISK.items()}[part] }.{rest}"
