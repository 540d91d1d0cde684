"""Published numbers of public suites, printed below our own and never mixed with them.

Other scorers, images and settings lie behind them, so a number of ours is comparable only with others of ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRows:
    """Rows of a published table."""

    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    """Scores by system, in the order of the columns."""


FOCUSDPO = "FocusDPO: Dynamic Preference Optimization for Multi-Subject Personalized Image Generation"
"""The paper whose tables quote those of earlier papers."""
PUBLISHED = {
    "dreambench": PublishedRows(
        f"{FOCUSDPO}, table 2; rows of other systems are quoted there",
        ("DINO-I", "CLIP-I", "CLIP-T"),
        {
            "DreamBooth": (0.430, 0.695, 0.308),
            "MS-Diffusion": (0.525, 0.726, 0.319),
            "OmniGen": (0.511, 0.722, 0.331),
            "DreamO": (0.539, 0.727, 0.313),
            "UNO": (0.542, 0.733, 0.322),
            "UNO + SFT": (0.542, 0.732, 0.321),
            "UNO + DPO": (0.545, 0.731, 0.322),
            "UNO + FocusDPO": (0.570, 0.739, 0.328),
        },
    ),
    "dreambench-single": PublishedRows(
        f"{FOCUSDPO}, table 1; rows of other systems are quoted there",
        ("DINO-I", "CLIP-I", "CLIP-T"),
        {
            "DreamBooth": (0.668, 0.803, 0.305),
            "SSR-Encoder": (0.612, 0.821, 0.308),
            "RealCustom++": (0.702, 0.794, 0.318),
            "OmniGen": (0.693, 0.801, 0.315),
            "OminiControl": (0.684, 0.799, 0.312),
            "DreamO": (0.712, 0.809, 0.314),
            "IP-Adapter-Plus": (0.692, 0.826, 0.281),
            "IP-Adapter-Plus + SFT": (0.691, 0.828, 0.279),
            "IP-Adapter-Plus + DPO": (0.695, 0.831, 0.276),
            "IP-Adapter-Plus + PatchDPO": (0.727, 0.838, 0.292),
            "IP-Adapter-Plus + FocusDPO": (0.751, 0.840, 0.303),
            "UNO": (0.760, 0.835, 0.304),
            "UNO + SFT": (0.761, 0.832, 0.299),
            "UNO + DPO": (0.764, 0.835, 0.301),
            "UNO + FocusDPO": (0.802, 0.842, 0.316),
        },
    ),
    "psrbench": PublishedRows(
        "secondary source: a note on arXiv:2512.01236, not its text; the scale of HPSv3 is not given",
        ("SC", "HPSv3", "SA"),
        {
            "FLUX.1 Kontext": (0.497, 0.870, 0.583),
            "UNO": (0.523, 1.009, 0.667),
            "OmniGen2": (0.587, 1.020, 0.758),
            "XVerse": (0.587, 0.893, 0.669),
            "PSR after SFT": (0.559, 0.794, 0.712),
            "PSR": (0.673, 1.124, 0.783),
        },
    ),
}
"""Rows by suite."""


def published_lines(suite: str) -> list[str]:
    """The published rows of a suite as lines for the terminal, their source first; empty if there are none."""
    table = PUBLISHED.get(suite)
    if table is None:
        return []
    width = max(map(len, table.rows))
    header = f"{'system':<{width}}" + "".join(f"{name:>10}" for name in table.columns)
    rows = [f"{name:<{width}}" + "".join(f"{score:>10.3f}" for score in row) for name, row in table.rows.items()]
    return ["", f"published, not comparable ({table.source}):", header, *rows]
