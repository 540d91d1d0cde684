"""Checks of the kind of a checkpoint by its first bytes, without loading or unpickling it."""

import hashlib
import json
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

from mcpipe.core.records import JSON
from mcpipe.models.checkpoints import checkpoint_folder, one_file

FLUX_PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header, as in the library."""
ONNX_START = b"\x08"
"""First field of an ONNX model: its version."""
PICKLED_ROOTS = {"torch", "ultralytics", "collections", "numpy", "_codecs", "pathlib", "argparse"}
"""Packages whose names a pose or segmentation checkpoint may mention; the loaders have lists of their own."""
PICKLED_BUILTINS = {"set", "frozenset", "dict", "list", "tuple", "slice", "complex", "bytearray"}
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
    return f"ultralytics checkpoint, {pickled(file)}"


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


def flux(folder: Path) -> str:
    """A FluxPipeline saved by diffusers."""
    kind = _json(folder / "model_index.json").get("_class_name")
    if kind != "FluxPipeline":
        raise ValueError(f"{folder} holds a {kind}, not a FluxPipeline")
    counted = {part: num_weights(checkpoint_folder(folder / part, part, "config.json")) for part in FLUX_PARTS}
    for part in ("tokenizer", "tokenizer_2", "scheduler"):
        checkpoint_folder(folder / part, part, "*.json")
    return f"FluxPipeline, transformer {counted['transformer'] / 1e6:,.1f} M weights"


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
    "dino": transformers_model("ViTModel", "Dinov2Model"),
    "hps": hps,
}
"""By the model's name under ``models`` in params.yaml."""


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
        ValueError: the header is damaged, or the file is shorter or longer than it says.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER_LIMIT + 1
        try:
            header = json.loads(stream.read(length)) if length <= HEADER_LIMIT else None
            tensors = {name: entry for name, entry in dict(header or {}).items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=None)
            shapes = {name: list(entry["shape"]) for name, entry in tensors.items()}
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"{file} is no safetensors file: its header is damaged") from error
    if end is None:
        raise ValueError(f"{file} is no safetensors file: its header is damaged")
    if file.stat().st_size != 8 + length + end:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, but its header speaks of {8 + length + end}")
    return shapes


def pickled(file: Path) -> str:
    """What a file of ``torch.save`` names, without running it.

    Raises:
        ValueError: it is no such file, or names something that has no place in weights.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
            names = sorted(set(pickled_names(archive.read(inner[0]))))
    except (zipfile.BadZipFile, IndexError, ValueError, EOFError) as error:
        raise ValueError(f"{file} is no checkpoint of torch.save, or is cut short") from error
    strange = [name for name in names if not _harmless(name)]
    if strange:
        raise ValueError(f"{file} would import {', '.join(strange)} when unpickled; do not load it")
    return f"{file.name} names nothing strange"


def pickled_names(content: bytes) -> Iterator[str]:
    """Every "module name" that a pickle would import."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    for operation, argument, _ in pickletools.genops(content):
        match operation.name:
            case "GLOBAL" | "INST":
                yield str(argument)
            case "STACK_GLOBAL":
                yield " ".join(texts[-2:])
            case "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            case "BINGET" | "LONG_BINGET" if isinstance(argument, int) and argument in memo:
                texts.append(memo[argument])
            case _ if isinstance(argument, str):
                texts.append(argument)


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


def _harmless(name: str) -> bool:
    module, _, what = name.partition(" ")
    if module in ("__builtin__", "builtins"):
        return what in PICKLED_BUILTINS
    return module.split(".")[0] in PICKLED_ROOTS


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
