"""Maximum length of a generator's texts, by the tokeniser of its T5 encoder, without its weights."""

from pathlib import Path

from mcpipe.core.texts import lost_text
from mcpipe.models.checkpoints import checkpoint_folder, loaded

FOLDER = "tokenizer_2"
"""Folder of the tokeniser of T5 in a FLUX pipeline, whose tokens the transformer attends to."""


class T5Limit:
    """A limit from the folder of a T5 tokeniser in a FLUX pipeline: ``model_max_length`` tokens (FLUX.1: 512)."""

    def __init__(self, folder: Path) -> None:
        """Load the tokeniser.

        Raises:
            FileNotFoundError: the folder or its configuration is missing.
            ValueError: its files are damaged.
        """
        from transformers import AutoTokenizer

        checkpoint_folder(folder, "T5 tokenizer", "tokenizer_config.json")
        self._tokenizer = loaded(
            lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True), folder, "T5 tokenizer"
        )

    def lost(self, text: str) -> str:
        """The end of a text that T5 does not read; empty if it reads the whole text."""
        return lost_text(self._tokenizer, text, self._tokenizer.model_max_length)
