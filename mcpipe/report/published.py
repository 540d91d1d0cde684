"""Published numbers, shown beside our own and never mixed with them.

Source: "MultiCrafter: High-Fidelity Multi-Subject Generation via Disentangled Attention and Identity-Aware Preference
Alignment", table 1 (comparison) and table 2 (ablation). The paper's human benchmark has 1,000 pairs of photographed
faces at 512 x 512 pixels and was not released.
"""

from dataclasses import dataclass

METRICS = ("clip_t", "face_sim", "dino_i", "clip_i", "hps")
"""Columns of a row's ``human`` scores."""
OBJECT_METRICS = ("clip_t", "dino_i", "clip_i", "hps")
"""Columns of a row's ``objects`` scores."""


@dataclass(frozen=True)
class Published:
    """One row of a published table."""

    name: str
    human: tuple[float, ...]
    objects: tuple[float, ...]
    """Empty where the table has no such columns."""
    average: float | None
    """As printed; ``None`` where the table has no such column."""


@dataclass(frozen=True)
class PublishedTable:
    """A published table and where it stands."""

    source: str
    title: str
    rows: tuple[Published, ...]


COMPARISON = PublishedTable(
    "MultiCrafter, table 1",
    "Comparison with other methods, 1,000 pairs of people and 1,000 sets of objects",
    (
        Published("MS-Diffusion", (0.2498, 0.0945, 0.4767, 0.5801, 0.2461), (0.2887, 0.4002, 0.6681, 0.2685), 0.3636),
        Published("MIP-Adapter", (0.2631, 0.2117, 0.6959, 0.7140, 0.2791), (0.2984, 0.5470, 0.7776, 0.2374), 0.4471),
        Published("OmniGen", (0.2741, 0.3238, 0.7225, 0.7642, 0.2996), (0.3151, 0.6727, 0.8085, 0.2561), 0.4930),
        Published("UNO", (0.2645, 0.1474, 0.5972, 0.6489, 0.2954), (0.3259, 0.7374, 0.8392, 0.2676), 0.4582),
        Published("OmniGen2", (0.2837, 0.2453, 0.6788, 0.7205, 0.3103), (0.3310, 0.7538, 0.8470, 0.2872), 0.4953),
        Published("DreamO", (0.2747, 0.3345, 0.7441, 0.7988, 0.3056), (0.3207, 0.7394, 0.8393, 0.2637), 0.5134),
        Published("XVerse", (0.2591, 0.4117, 0.7665, 0.8027, 0.2498), (0.2981, 0.7449, 0.8456, 0.2595), 0.5153),
        Published("MultiCrafter", (0.2753, 0.5284, 0.8294, 0.8524, 0.2915), (0.3380, 0.7824, 0.8608, 0.2748), 0.5592),
    ),
)

ABLATION = PublishedTable(
    "MultiCrafter, table 2",
    "What each part adds, 1,000 pairs of people",
    (
        Published("UNO (baseline)", (0.2645, 0.1474, 0.5972, 0.6489, 0.2954), (), None),
        Published("+ IDAR", (0.2637, 0.4983, 0.7953, 0.8032, 0.2653), (), None),
        Published("+ IDAR + MoE-LoRA", (0.2674, 0.5154, 0.8107, 0.8480, 0.2661), (), None),
        Published("+ IDAR + MoE-LoRA + IPPO", (0.2753, 0.5284, 0.8294, 0.8524, 0.2915), (), None),
    ),
)


def overall_average(row: Published) -> float:
    """The paper's AVG column: the plain mean of the nine metric columns, five of people and four of objects."""
    scores = (*row.human, *row.objects)
    return sum(scores) / len(scores)
