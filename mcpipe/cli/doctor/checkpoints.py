"""Inspection of checkpoints by their headers: nothing is loaded, nothing is unpickled."""

import hashlib
import json
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError, safe_open
from torch.serialization import get_unsafe_globals_in_checkpoint

from mcpipe.core.errors import one_line
from mcpipe.core.records import JSON
from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, one_file

FLUX_PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
HPSV3 = "HPSv3*.safetensors"
ONNX_START = b"\x08"
"""First field of an ONNX model: its version."""
NOTHING = re.compile("(?!)")
"""Matches no name."""
ULTRALYTICS = re.compile(
    r"(torch|ultralytics)\.nn\.modules(\.\w+)?\.[A-Z]\w*"
    r"|ultralytics\.(nn\.tasks|utils\.loss|utils\.tal)\.[A-Z]\w*"
    r"|ultralytics\.(yolo\.)?utils\.IterableSimpleNamespace"
    r"|numpy\.(dtype|_?core\.multiarray\.scalar)"
    r"|pathlib\.(_local\.)?(Posix|Windows)Path"
    r"|builtins\.getattr"
)
"""What ultralytics' restricted loader accepts beyond torch's own list. It replaces ``getattr``, which checkpoints of
YOLO11 name, by a function that reaches attributes of network classes alone."""
CHUNK = 1 << 20


def inspect_model(name: str, path: Path) -> str:
    """What lies at the place of a model, in a few words.

    Raises:
        FileNotFoundError: it or a part of it is missing.
        ValueError: it is damaged or of another kind.
    """
    return INSPECTIONS[name](path)


def pose(file: Path) -> str:
    """An ultralytics checkpoint."""
    if not file.is_file():
        raise FileNotFoundError(f"no pose checkpoint {file}")
    return f"ultralytics checkpoint, {pickled(file, ULTRALYTICS)}"


def segmenter(folder: Path) -> str:
    """A SAM 2 configuration and its checkpoint."""
    configuration = one_file(folder, "segmenter", "*.yaml")
    return f"SAM 2 {configuration.stem}, {pickled(one_file(folder, 'segmenter', '*.pt'))}"


def hps(folder: Path) -> str:
    """An open_clip configuration and an HPS v2.1 checkpoint."""
    configurations = sorted(checkpoint_folder(folder, "HPS", "*.json", "*.pt").glob("ViT*.json"))
    if len(configurations) != 1:
        raise FileNotFoundError(f"{folder} should hold exactly one open_clip configuration ViT*.json")
    return f"open_clip {configurations[0].stem}, {pickled(one_file(folder, 'HPS', '*.pt'))}"


def preference(folder: Path) -> str:
    """HPSv3's weights with configuration and tokenizer of their Qwen2-VL, or an HPS v2.1 checkpoint."""
    if not any(checkpoint_folder(folder, "preference model").glob(HPSV3)):
        return hps(folder)
    file = one_file(checkpoint_folder(folder, "HPSv3", "config.json", PROCESSING, "tokenizer*.json"), "HPSv3", HPSV3)
    shapes = tensor_shapes(file)
    if "rm_head.0.weight" not in shapes:
        raise ValueError(f"{file} has no reward head rm_head")
    return f"HPSv3, {sum(map(prod, shapes.values())) / 1e6:,.1f} M weights"


def faces(folder: Path) -> str:
    """An InsightFace pack, a folder ``ROOT/models/NAME`` of ONNX files."""
    files = sorted(checkpoint_folder(folder, "face pack", "*.onnx").glob("*.onnx"))
    if folder.parent.name != "models":
        raise ValueError(f"face pack {folder} should lie in a folder called models, as InsightFace lays it out")
    for file in files:
        with file.open("rb") as stream:
            if stream.read(1) != ONNX_START:
                raise ValueError(f"{file} is no ONNX model")
    return f"InsightFace pack {folder.name}: {', '.join(file.name for file in files)}"


PIPELINES = ("FluxPipeline", "FluxKontextPipeline")
"""As `mcpipe.flux.backbone.CLASSES`, which would import torch's models here."""


def flux(folder: Path) -> str:
    """A FluxPipeline saved by diffusers."""
    kind = _json(folder / "model_index.json").get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} holds a {kind}, not a FluxPipeline")
    counted = {part: num_weights(checkpoint_folder(folder / part, part, "config.json")) for part in FLUX_PARTS}
    for part in ("tokenizer", "tokenizer_2", "scheduler"):
        checkpoint_folder(folder / part, part, "*.json")
    return f"{kind}, transformer {counted['transformer'] / 1e6:,.1f} M weights"


def transformers_model(*classes: str) -> Callable[[Path], str]:
    """The inspection of a transformers folder that has to be of one of some classes."""

    def inspect(folder: Path) -> str:
        named = _json(checkpoint_folder(folder, classes[0], "config.json") / "config.json").get("architectures")
        kinds = named if isinstance(named, list) else []
        if not set(kinds) & set(classes):
            raise ValueError(f"{folder} holds {', '.join(map(str, kinds)) or 'no named class'}, not {classes[0]}")
        return f"{kinds[0]}, {num_weights(folder) / 1e6:,.1f} M weights"

    return inspect


INSPECTIONS: dict[str, Callable[[Path], str]] = {
    "pose": pose,
    "segmenter": segmenter,
    "faces": faces,
    "faces_heldout": faces,
    "captioner": transformers_model("Qwen2_5_VLForConditionalGeneration"),
    "generator": flux,
    "clip": transformers_model("CLIPModel"),
    "reward_clip": transformers_model("CLIPModel"),
    "dino": transformers_model("ViTModel", "Dinov2Model"),
    "dinov2": transformers_model("Dinov2Model"),
    "grounder": transformers_model("Florence2ForConditionalGeneration", "GroundingDinoForObjectDetection"),
    "hps": hps,
    "reward_hps": hps,
    "pick_score": transformers_model("CLIPModel"),
    "preference": preference,
    "encoder": transformers_model("ViTModel", "Dinov2Model"),
    "judge": transformers_model("Qwen2_5_VLForConditionalGeneration"),
}
"""By the model's name under ``models`` in params.yaml, or in ``evaluate``, ``psrbench`` and ``rl_psr``."""


def num_weights(folder: Path) -> int:
    """Numbers in all safetensors files of a folder, which have to be whole.

    Raises:
        FileNotFoundError: there is none, or the index names one that is missing.
        ValueError: one is damaged or cut short.
    """
    for index in folder.glob("*.safetensors.index.json"):
        places = _json(index).get("weight_map")
        for name in sorted({str(place) for place in places.values()} if isinstance(places, dict) else ()):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} lacks {name}, which {index.name} names")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} lacks *.safetensors; is the checkpoint complete?")
    return sum(prod(shape) for file in files for shape in tensor_shapes(file).values())


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file, from its header.

    Raises:
        ValueError: the header is damaged, names no tensors, or the file is shorter or longer than the header says.
    """
    try:
        with safe_open(file, "pt") as content:
            shapes = {name: content.get_slice(name).get_shape() for name in content.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is no safetensors file, or is cut short: {one_line(error)}") from error
    if not shapes:
        raise ValueError(f"{file} holds no tensors; is the checkpoint complete?")
    return shapes


def pickled(file: Path, expected: re.Pattern[str] = NOTHING) -> str:
    """Check a file of ``torch.save`` without unpickling it.

    Args:
        file: Its weights are not read.
        expected: Names that it may import beside those that torch accepts in weights.

    Raises:
        ValueError: it is no such file, or would import anything else.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, EOFError, IndexError, UnpicklingError, struct.error) as error:
        reason = one_line(error).split(". ")[0] or type(error).__name__
        raise ValueError(
            f"{file} is cut short, or is no checkpoint of torch.save in PyTorch 1.6 or later: {reason}"
        ) from error
    if strange := sorted(name for name in names if not expected.fullmatch(name)):
        raise ValueError(f"{file} would import {', '.join(strange)} when unpickled; do not load it")
    return f"{file.name} names nothing strange"


def digest(path: Path) -> str:
    """The MD5 of a file, or of a folder as DVC reckons it.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": _md5(file), "relpath": name} for name, file in sorted(files.items())]
    return f"{hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()}.dir"


def _md5(file: Path) -> str:
    total = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _json(file: Path) -> dict[str, JSON]:
    if not file.is_file():
        raise FileNotFoundError(f"no {file}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it should hold a JSON object")  # noqa: TRY004  about a file
    return content
