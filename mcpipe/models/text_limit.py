"""Maximum length of texts, by the tokenisers of a generator, without weights."""

from pathlib import Path

from mcpipe.core.texts import clip_windows, lost_text
from mcpipe.models.checkpoints import checkpoint_folder, loaded

FOLDER = "tokenizer_2"
"""Folder of the tokeniser of T5 in a FLUX pipeline, whose tokens the transformer attends to."""
CLIP_FOLDER = "tokenizer"
"""Folder of the tokeniser of CLIP in it, whose pooled embedding the transformer gets."""


class TextReader:
    """A tokeniser from its folder, with its ``model_max_length``."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load the tokeniser; ``name`` stands in messages.

        Raises:
            FileNotFoundError: the folder or its configuration is missing.
            ValueError: its files are damaged.
        """
        from transformers import AutoTokenizer

        checkpoint_folder(folder, name, "tokenizer_config.json")
        self._tokenizer = loaded(lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True), folder, name)

    @property
    def max_tokens(self) -> int:
        """Tokens that the encoder reads, special ones included."""
        return self._tokenizer.model_max_length


class T5Limit(TextReader):
    """A limit from the folder of a T5 tokeniser in a FLUX pipeline: ``model_max_length`` tokens (FLUX.1: 512)."""

    def __init__(self, folder: Path) -> None:
        """Load the tokeniser.

        Raises:
            FileNotFoundError: the folder or its configuration is missing.
            ValueError: its files are damaged.
        """
        super().__init__(folder, "T5 tokenizer")

    def lost(self, text: str) -> str:
        """The end of a text that T5 does not read; empty if it reads the whole text."""
        return lost_text(self._tokenizer, text, self.max_tokens)


class ClipWindows(TextReader):
    """The windows of a CLIP tokeniser in a FLUX pipeline (77 tokens)."""

    def __init__(self, folder: Path) -> None:
        """Load the tokeniser.

        Raises:
            FileNotFoundError: the folder or its configuration is missing.
            ValueError: its files are damaged.
        """
        super().__init__(folder, "CLIP tokenizer")

    def windows(self, text: str) -> list[str]:
        """The parts in which CLIP reads a text; one where it fits."""
        return clip_windows(self._tokenizer, text, self.max_tokens)
