"""Checks of checkpoint folders before a library loads them: every fault becomes one clear line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FAULTS = (RuntimeError, ValueError, OSError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError)
"""Errors that vendors' loaders raise for damaged files and for files of another class."""

PROCESSING = "preprocessor_config.json|processor_config.json"
WEIGHTS = "*.safetensors|pytorch_model*.bin"
MAX_FAULT_LENGTH = 200


def checkpoint_folder(folder: Path, what: str, *patterns: str) -> Path:
    """The folder itself, if each pattern matches a file in it; "a|b" stands for either pattern.

    Raises:
        FileNotFoundError: the folder does not exist, or a pattern matches no file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no {what} folder {folder}; check models: in params.yaml")
    for pattern in patterns:
        choices = pattern.split("|")
        if not any(any(folder.glob(choice)) for choice in choices):
            raise FileNotFoundError(f"{what} folder {folder} lacks {' or '.join(choices)}; is the checkpoint complete?")
    return folder


def loaded(load: Callable[[], T], folder: Path, what: str) -> T:
    """The result of ``load``.

    Raises:
        ValueError: ``load`` failed because the files are damaged or of another kind.
    """
    # safetensors' own error class derives from Exception alone, so it cannot be named in FAULTS without its library.
    from safetensors import SafetensorError

    try:
        return load()
    except (*FAULTS, SafetensorError) as error:
        # Vendors go on to give advice; the first sentence says what is wrong.
        reason = " ".join(str(error).split()).split(". ")[0][:MAX_FAULT_LENGTH]
        raise ValueError(f"{folder} is no usable {what}: {type(error).__name__}: {reason}") from error


def pretrained(load: Callable[..., tuple[T, dict]], folder: Path, what: str, *, dtype: str = "float32") -> T:
    """A complete transformers model of a folder, from its class's ``from_pretrained``.

    The library itself initialises missing weights at random, with only a warning.

    Raises:
        FileNotFoundError: the folder has no configuration or no weights.
        ValueError: the files are damaged, or weights are missing or of another shape.
    """
    from transformers.utils import logging

    checkpoint_folder(folder, what, "config.json", WEIGHTS)
    logging.disable_progress_bar()
    model, report = loaded(
        lambda: load(folder, local_files_only=True, dtype=dtype, output_loading_info=True), folder, what
    )
    # DINO's checkpoints have no pooling layer on top; its output is not used here.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    unfit = sorted(str(fault) for fault in report["mismatched_keys"])
    if missing or unfit:
        faults = f"{len(missing)} weights missing, {len(unfit)} of another shape, first {(missing + unfit)[0]}"
        raise ValueError(f"{folder} is no whole {what}: {faults}")
    return model


def device_name() -> str:
    """The best available device: "cuda" with a GPU, otherwise "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def one_file(folder: Path, what: str, pattern: str) -> Path:
    """The only file that matches a pattern.

    Raises:
        FileNotFoundError: no file or several files match.
    """
    files = sorted(checkpoint_folder(folder, what).glob(pattern))
    if len(files) != 1:
        names = os.pathsep.join(path.name for path in files) or "none"
        raise FileNotFoundError(f"{what} folder {folder} should hold exactly one {pattern}, found {names}")
    return files[0]
