"""The measurements behind a decision, gathered while it is made and told whether it falls one way or the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mcpipe.core.records import JSON, Rejection

DIGITS = 4


@dataclass
class Scores:
    """What was measured of a clip, by name."""

    told: dict[str, JSON] = field(default_factory=dict)
    """Rounded numbers: one, or a list with one per frame, or per person of the initial and of the middle frame."""

    def note(self, **scores: float | int) -> None:
        """Remember measurements of the clip."""
        self.told |= {name: round(float(score), DIGITS) for name, score in scores.items()}

    def add(self, scores: Mapping[str, float | int]) -> None:
        """Append measurements of one frame or of one person in it."""
        for name, score in scores.items():
            series = self.told.setdefault(name, [])
            assert isinstance(series, list), f"{name} was noted and cannot be added to"
            series.append(round(float(score), DIGITS))

    def rejection(self, fault: tuple[str, str], where: str = "") -> Rejection:
        """The refusal for a fault, a reason and a detail, with the measurements up to it."""
        reason, detail = fault
        return Rejection(reason, where + detail, self.told)
