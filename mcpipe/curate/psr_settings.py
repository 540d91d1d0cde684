"""Settings of the texts of synthetic training data (PSR, arXiv:2512.01236), and the names in them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mcpipe.core.params import Params, RecordsPerShard, TakenFrom

Task = Literal["attribute", "background", "action", "position", "complex", "three", "four"]
"""The task types of PSR, which are the subsets of PSRBench."""
Kind = Literal["things", "people"]
"""What the subjects of a text are."""
TOLERANCE = 1e-6
"""By how much shares may miss 1."""


class Shares(Params):
    """Shares that add up to 1."""

    @model_validator(mode="after")
    def _add_up(self) -> "Shares":
        shares: dict[str, float] = self.model_dump()
        if abs(sum(shares.values()) - 1) > TOLERANCE:
            raise ValueError(f"{', '.join(shares)} should add up to 1, found {sum(shares.values()):.4g}")
        return self


class NumberShares(Shares):
    """Shares of texts with two, three and four subjects."""

    two: float = Field(ge=0, le=1)
    three: float = Field(ge=0, le=1)
    four: float = Field(ge=0, le=1)


class TaskShares(Shares):
    """Shares of the task types among texts with two subjects."""

    attribute: float = Field(ge=0, le=1)
    background: float = Field(ge=0, le=1)
    action: float = Field(ge=0, le=1)
    position: float = Field(ge=0, le=1)
    complex: float = Field(ge=0, le=1)


class KindParams(Params):
    """Texts about subjects of one kind."""

    num_texts: int = Field(ge=1)
    categories: list[str] = Field(min_length=1)
    """Nouns without articles, no two of them equal. A text has each at most once, unless there are too few of them."""
    tasks: TaskShares

    @model_validator(mode="after")
    def _categories_differ(self) -> "KindParams":
        plain = [" ".join(category.casefold().split()) for category in self.categories]
        if len(set(plain)) < len(plain) or "" in plain:
            raise ValueError("categories should be different nouns")
        return self


class EditsParams(Params):
    """Which targets are edited, and by what."""

    editor: str | None
    """Folder of a ``FluxKontextPipeline``; ``None`` if nothing is edited."""
    share: float = Field(ge=0, le=1)
    """Share of the texts of the task types in `mcpipe.curate.psr_edits.CHANGED`."""

    @model_validator(mode="after")
    def _has_an_editor(self) -> "EditsParams":
        if self.share and not self.editor:
            raise ValueError(f"share {self.share} needs edits.editor, the folder of a FluxKontextPipeline")
        return self


class EditChecks(Params):
    """What has to hold of an edited target."""

    attempts: int = Field(ge=1)
    """Maximum number of edits of one target."""
    min_similarity: dict[Kind, Annotated[float, Field(ge=-1, le=1)]]
    """Least cosine of a subject before and after, by DINO for things, by the recogniser for people."""
    questions: list[str]
    """Questions about the edited target, with ``{phrase}`` in place of its new caption; "yes" lets it pass."""


class TextsParams(Params):
    """What texts are about, and how the language model is asked."""

    seed: int = Field(ge=0)
    """Seed of the draws and of the answers."""
    kinds: Annotated[dict[Kind, KindParams], TakenFrom("kinds")]
    numbers: NumberShares
    sentences: Annotated[dict[Task, str], TakenFrom("task_sentences")]
    """What is added to the instruction for a prompt, by task type."""
    edits: Annotated[EditsParams, TakenFrom("edits")]
    """Which of them say what is changed in the target after it was drawn."""
    recaption: Literal["grammar", "model"]
    """Whether looks are taken out of a prompt by the grammar of the zoo's judge, or by asking the model again."""
    attempts: int = Field(ge=1)
    """Maximum number of answers to one instruction."""
    temperature: float = Field(ge=0)
    """Temperature of every answer; 0 decodes greedily."""
    max_tokens: int = Field(ge=1)
    """Longest answer in tokens."""
    records_per_shard: RecordsPerShard
