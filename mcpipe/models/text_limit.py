"""How long a text may be for a generator, by the tokeniser of its T5 encoder alone, without its weights."""

from pathlib import Path

from mcpipe.core.texts import lost_text
from mcpipe.models.checkpoints import checkpoint_folder, loaded

FOLDER = "tokenizer_2"
"""Where a FLUX pipeline keeps the tokeniser of T5, whose tokens the transformer attends to."""


class T5Limit:
    """The folder of a T5 tokeniser, as a FLUX pipeline saves it; it reads ``model_max_length`` tokens (FLUX.1: 512)."""

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
        """The end of a text that T5 does not see; empty if it sees all of it."""
        return lost_text(self._tokenizer, text, self._tokenizer.model_max_length)
