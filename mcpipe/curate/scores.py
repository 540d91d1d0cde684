"""Measurements of a clip, collected during curation and stored for accepted and rejected clips alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.schemas.curation import Measurement

DIGITS = 4


@dataclass
class Scores:
    """Measurements of a clip, by name."""

    measured: dict[str, Measurement] = field(default_factory=dict)
    """Rounded values."""

    def note(self, **scores: float | int) -> None:
        """Set measurements of the whole clip."""
        self.measured |= {name: round(float(score), DIGITS) for name, score in scores.items()}

    def add(self, scores: Mapping[str, float | int]) -> None:
        """Append measurements of one frame or of one person in it."""
        for name, score in scores.items():
            series = self.measured.setdefault(name, [])
            assert isinstance(series, list), f"{name} was noted and cannot be added to"
            series.append(round(float(score), DIGITS))

    @contextmanager
    def kept(self, where: str = "") -> Iterator[None]:
        """Add the measurements so far, and the prefix ``where``, to a rejection that the block raises."""
        try:
            yield
        except RejectionError as error:
            scores: dict[str, JSON] = {
                name: [*value] if isinstance(value, list) else value for name, value in self.measured.items()
            }
            raise RejectionError(error.reason, where + error.detail, scores) from None
