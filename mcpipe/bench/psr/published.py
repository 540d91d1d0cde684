"""Published numbers of PSRBench, shown beside our own and never mixed with them.

They come from a secondary source: a third-party note on the paper (arXiv:2512.01236), not its text. The scale of the
preference score is not given there, and the published scripts count samples otherwise (see `mcpipe.bench.psr.metrics`).
"""

from dataclasses import dataclass

SOURCE = "secondary source: a note on arXiv:2512.01236; other images, judge and scale of the preference score"


@dataclass(frozen=True)
class PublishedRow:
    """One system of the published table."""

    name: str
    subject_consistency: float
    preference: float
    semantic_alignment: float


ROWS = (
    PublishedRow("FLUX.1 Kontext", 0.497, 0.870, 0.583),
    PublishedRow("UNO", 0.523, 1.009, 0.667),
    PublishedRow("OmniGen2", 0.587, 1.020, 0.758),
    PublishedRow("XVerse", 0.587, 0.893, 0.669),
    PublishedRow("PSR after SFT", 0.559, 0.794, 0.712),
    PublishedRow("PSR", 0.673, 1.124, 0.783),
)


def published_lines() -> list[str]:
    """The published rows as lines of a table for the terminal, their source first."""
    lines = [f"published, not comparable ({SOURCE}):", f"{'system':<16}{'SC':>8}{'SA':>8}{'HPSv3':>8}"]
    return lines + [
        f"{row.name:<16}{row.subject_consistency:>8.3f}{row.semantic_alignment:>8.3f}{row.preference:>8.3f}"
        for row in ROWS
    ]
