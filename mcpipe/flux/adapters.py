"""What training adds to the generator, and its files.

    pytorch_lora_weights.safetensors   plain LoRA, in the layout that diffusers and ComfyUI load
    multicrafter_experts.safetensors   experts and routers, under names that stock loaders leave alone; if any
    adapter.json                       rank, experts, sizes in pixels, positions, shift

Plain LoRA stands where UNO puts it: attention projections of all blocks and the output layer of single blocks.
Where experts stand is a choice; in the output layer of single blocks they replace the plain LoRA.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from peft import inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mcpipe.core.params import Params
from mcpipe.core.sizes import Size
from mcpipe.flux.backbone import FluxPipeline, FluxTransformer2DModel
from mcpipe.flux.lora_files import layout_of, plain_lora
from mcpipe.flux.lora_scale import peft_config
from mcpipe.flux.mismatch import generator_mark, mismatch
from mcpipe.flux.moe_lora import MoELoraConfig, MoELoraLinear, expert_layers
from mcpipe.flux.tokens import Positions
from mcpipe.objectives.moe import Router

PLAIN_FILE = "pytorch_lora_weights.safetensors"
EXPERTS_FILE = "multicrafter_experts.safetensors"
SPEC_FILE = "adapter.json"
NAME = "default"

PLAIN_MODULES = (
    r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_out)"
)
Placement = Literal["ffn_out", "double", "image", "single", "parallel"]
EXPERT_MODULES: dict[Placement, str] = {
    "ffn_out": r"transformer_blocks\.\d+\.ff(_context)?\.net\.2|single_transformer_blocks\.\d+\.proj_out",
    "double": r"transformer_blocks\.\d+\.ff(_context)?\.net\.2",
    "image": r"transformer_blocks\.\d+\.ff\.net\.2",
    "single": r"single_transformer_blocks\.\d+\.proj_out",
    "parallel": r"transformer_blocks\.\d+\.ff(_context)?",
}
"""Layers with experts. The paper says "the output FFN layers"; its figure has experts in parallel with a whole FFN.

``ffn_out``: output layers of all feed-forward networks; ``double``: of the double blocks alone; ``image``: of their
image and reference stream alone; ``single``: of the single blocks alone; ``parallel``: beside whole networks.
"""
GENERATOR = "generator"
"""Where a weights file names the generator that it was trained on."""

ON_DISK = {"lora_A": "lora_moe_A", "lora_B": "lora_moe_B", "lora_router": "lora_moe_router"}
"""Names of the experts' parts in their file. Under peft's own names, stock loaders would silently add them up."""


Weights = dict[Path, dict[str, Tensor]]
"""By file and name."""


class ExpertParams(Params):
    """Experts of a layer."""

    num_experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    """How many experts a token uses."""
    router: Router
    placement: Placement = "ffn_out"
    """Where they stand; that of files that do not say."""

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(f"a token cannot use {self.top_k} of {self.num_experts} experts")
        return self


class AdapterSpec(Params):
    """What an adapter is made of, and for which sizes it was trained."""

    rank: int = Field(ge=1)
    """Rank of every LoRA and of every single expert; alpha equals it (UNO, ICEdit), so that the scale is 1."""
    experts: ExpertParams | None
    image_size: int = Field(ge=1)
    """Side of an image in pixels."""
    reference_size: int = Field(ge=1)
    """Side of a reference in pixels."""
    positions: Positions = "unope"
    """Positions of references; the default for files that do not name any."""
    shift: float | None = Field(default=None, gt=0)
    """Shift s of the noise levels of its last training on flow matching, if the file says; right for drawing."""
    sizes: tuple[Size, ...] = ()
    """Widths and heights of the images in pixels, where they are not all squares; drawn in turn."""

    def size_at(self, place: int) -> int | Size:
        """The size of the image at a place in an order of prompts: width and height, or the side of a square."""
        return self.sizes[place % len(self.sizes)] if self.sizes else self.image_size


def add_adapter(transformer: FluxTransformer2DModel, spec: AdapterSpec, seed: int) -> None:
    """Give the transformer a fresh trainable adapter, in float32, which does not change what it computes."""
    experts = EXPERT_MODULES[spec.experts.placement] if spec.experts else ""
    config = MoELoraConfig(
        r=spec.rank,
        lora_alpha=spec.rank,
        init_lora_weights="gaussian",
        target_modules=f"{PLAIN_MODULES}|{experts}" if experts else PLAIN_MODULES,
        generator=generator_mark(transformer),
        positions=spec.positions,
        expert_modules=experts,
        **(spec.experts.model_dump(exclude={"placement"}) if spec.experts else {}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, NAME)
    for parameter in trainable(transformer).values():
        parameter.data = parameter.data.float()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def save_adapter(
    transformer: FluxTransformer2DModel, spec: AdapterSpec, folder: Path, gathered: Mapping[str, Tensor] | None = None
) -> None:
    """Write an adapter's files into a folder that exists; of a sharded one, with its ``gathered`` weights by name."""
    plain, experts = _weights(transformer, gathered or {})
    mark = {GENERATOR: transformer.peft_config[NAME].generator}
    save_file({f"transformer.{key}": weight for key, weight in plain.items()}, folder / PLAIN_FILE, mark)
    if experts:
        save_file({_on_disk(key): weight for key, weight in experts.items()}, folder / EXPERTS_FILE, mark)
    unused = None if spec.sizes else {"sizes"}
    (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=1, exclude=unused) + "\n", encoding="utf-8")


def read_spec(folder: Path) -> AdapterSpec:
    """Specification of the adapter in a folder.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: its description is damaged.
    """
    file = folder / SPEC_FILE
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that trains this adapter run?")
    try:
        return AdapterSpec.model_validate_json(file.read_text(encoding="utf-8"))
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
    _check_form(before, spec, folder / SPEC_FILE)
    files = [folder / PLAIN_FILE, *([folder / EXPERTS_FILE] if before.experts else [])]
    stored = {file: read_weights(file, generator_mark(pipeline.transformer)) for file in files}
    add_adapter(pipeline.transformer, spec, seed)
    _fill(pipeline.transformer, stored, spec.experts if before.experts is None else None)


def merge_plain(transformer: FluxTransformer2DModel) -> None:
    """Add the plain LoRA to the weights that it adapts, which then draw faster, where they are float32.

    bfloat16 would round small changes away. Experts stay beside their layers: a router chooses them.
    """
    for module in transformer.modules():
        is_plain = isinstance(module, Linear) and not isinstance(module, MoELoraLinear)
        if is_plain and module.weight.dtype is torch.float32:
            module.merge()


def _fill(transformer: FluxTransformer2DModel, stored: Weights, grown: ExpertParams | None) -> None:
    """Put stored weights into an adapter; where experts are ``grown``, plain ones become every one of them."""
    if grown is not None:
        stored = {file: _as_experts(transformer, some, grown.num_experts) for file, some in stored.items()}
    parameters = {_bare(name): parameter for name, parameter in trainable(transformer).items()}
    layers = _expert_prefixes(transformer)
    for file, weights in stored.items():
        own = {
            key: parameter.shape
            for key, parameter in parameters.items()
            if grown is not None or key.startswith(layers) == (file.name == EXPERTS_FILE)
        }
        fresh = [key for key in own if grown is not None and key.startswith(layers)]
        fault = mismatch({key: weight.shape for key, weight in weights.items()}, own, optional=fresh)
        if fault:
            raise ValueError(f"{file} does not fit: {fault}; it has {layout_of(file)}")
        for key, weight in weights.items():
            parameters[key].data.copy_(weight)


def _check_form(before: AdapterSpec, after: AdapterSpec, file: Path) -> None:
    if before.rank != after.rank:
        raise ValueError(f"{file} has rank {before.rank}; it cannot go on with rank {after.rank}")
    if before.experts is not None and before.experts != after.experts:
        raise ValueError(f"{file} has experts {before.experts}; it cannot go on with {after.experts}")


def _weights(transformer: nn.Module, gathered: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Plain and expert weights by their names without the adapter's name."""
    layers = _expert_prefixes(transformer)
    plain, experts = {}, {}
    for name, parameter in ((n, p) for n, p in transformer.named_parameters() if f".{NAME}." in n):
        place = experts if name.startswith(layers) else plain
        place[_bare(name)] = gathered.get(name, parameter).detach().cpu().contiguous()
    return plain, experts


def _expert_prefixes(transformer: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name, _ in expert_layers(transformer))


def _bare(name: str) -> str:
    return name.replace(f".{NAME}.", ".")


def _as_experts(transformer: nn.Module, plain: dict[str, Tensor], num_experts: int) -> dict[str, Tensor]:
    layers = {name for name, _ in expert_layers(transformer)}
    stored = {}
    for key, weight in plain.items():
        layer, part, _ = key.rsplit(".", 2)
        copies = (num_experts, 1) if part == "lora_A" else (1, num_experts)
        stored[key] = weight.repeat(*copies) if layer in layers else weight
    return stored


def read_weights(file: Path, generator: str) -> dict[str, Tensor]:
    """Weights of a file by their names in memory.

    Args:
        file: Of this project, or a LoRA file of any layout that `mcpipe.flux.lora_files` knows.
        generator: Mark of the generator that they have to be trained on, if the file says; empty for any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or was trained on another generator.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that trains this adapter run?")
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            stored = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - no mapping
        experts = {key: weight for key, weight in stored.items() if ".lora_moe_" in key}
        weights = {_in_memory(key): weight for key, weight in experts.items()}
        weights = weights or plain_lora(stored, peft_config(file, stored, metadata))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged or no adapter: {error}") from error
    mark = metadata.get(GENERATOR, "")
    if generator and mark and mark != generator:
        raise ValueError(f"{file} was trained on another generator (mark {mark}) than this one (mark {generator})")
    return weights


def _on_disk(key: str) -> str:
    layer, part, rest = key.rsplit(".", 2)
    return f"{layer}.{ON_DISK[part]}.{rest}"


def _in_memory(key: str) -> str:
    for memory, disk in ON_DISK.items():
        key = key.replace(f".{disk}.", f".{memory}.")
    return key
