"""Settings of preference training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mcpipe.core.params import Params, ShuffleReferences, TakenFrom
from mcpipe.objectives.dpo import Form, Reduction
from mcpipe.objectives.focus import Norm

Arm = Literal["sft", "dpo", "patch_dpo", "focus_dpo"]
"""Supervised training on winners; DPO without masks; PatchDPO; FocusDPO."""


class FocusParams(Params):
    """Masks of FocusDPO."""

    tau: float = Field(ge=0, le=1)
    """A_focus above which the confused tokens alone count."""
    gamma: float = Field(ge=0, le=1)
    """Weight of the confused tokens against detail in the other case."""
    norm: Norm
    """Division of the matched vectors by their norms, or by the squared ones."""
    reduction: Reduction
    """Denominator of masked errors."""


class PreferenceParams(Params):
    """Settings of every arm."""

    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Pairs per step, over all devices."""
    rank: int = Field(ge=1)
    """Rank of the added LoRA."""
    beta: float = Field(gt=0)
    """beta T omega(lambda_t), constant over noise levels in the form that is chosen."""
    form: Form
    """Errors of the velocity, or of the noise."""
    preset: str
    """Name of the learning rate in ``learning_rates``."""
    learning_rates: Annotated[dict[str, float], TakenFrom("learning_rates")]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    focus: FocusParams
    shift: Annotated[float, Field(gt=0), TakenFrom("flow.shift")]
    """Shift s of the noise levels."""
    guidance: Annotated[float, Field(ge=0), TakenFrom("flow.guidance")]
    """Guidance scale given to the transformer."""
    shuffle_references: ShuffleReferences
    """Whether references change places, together with their masks, from draw to draw."""

    @model_validator(mode="after")
    def _known_preset(self) -> Self:
        if self.preset not in self.learning_rates:
            raise ValueError(f"no learning rate {self.preset!r}; there are {', '.join(self.learning_rates)}")
        if min(self.learning_rates.values()) <= 0:
            raise ValueError("a learning rate should be above 0")
        return self

    @property
    def learning_rate(self) -> float:
        """The learning rate of AdamW."""
        return self.learning_rates[self.preset]
