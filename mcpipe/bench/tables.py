"""Scores of every arm as tables: for a terminal, and as cells for the report page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcpipe.bench.bootstrap import Interval, IntervalParams, mean_change

METRICS = ("clip_t", "face_sim", "dino_i", "clip_i", "hps", "detection_rate")
"""Every metric of the benchmark, in the order of the paper's tables; the last one is ours."""
LABELS = {
    "clip_t": "CLIP-T",
    "face_sim": "Face-Sim",
    "dino_i": "DINO-I",
    "clip_i": "CLIP-I",
    "hps": "HPS",
    "detection_rate": "Detected",
}
MEANINGS = {
    "clip_t": "cosine of the picture and its prompt in CLIP space",
    "face_sim": "cosine of each reference face and the face matched with it, each at most once; negative ones count 0",
    "dino_i": "cosine of each reference and its located subject in DINO space",
    "clip_i": "cosine of each reference and its located subject in CLIP space",
    "hps": "HPS v2.1, a model of human preference; a cosine, without the customary factor of 100",
    "detection_rate": "share of the subjects for which a face was found",
}
POLICY = "A subject without a face in the picture counts 0 and stays in the mean. Higher is better everywhere."
"""Stands beside every table, because other papers skip such pictures or compare the whole of them."""


@dataclass(frozen=True)
class ArmScores:
    """What one arm scored."""

    name: str
    means: Mapping[str, Interval]
    """By metric."""
    num_pictures: int


def from_metrics(name: str, metrics: Mapping[str, float]) -> ArmScores:
    """The scores in a ``metrics.json``.

    Raises:
        ValueError: a number is missing.
    """
    try:
        means = {
            metric: Interval(metrics[metric], metrics[f"{metric}_low"], metrics[f"{metric}_high"]) for metric in METRICS
        }
        return ArmScores(name, means, int(metrics["num_images"]))
    except KeyError as error:
        raise ValueError(f"metrics of {name} lack {error}; run evaluate again") from error


def as_metrics(means: Mapping[str, Interval], num_pictures: int) -> dict[str, float]:
    """The content of a ``metrics.json``: three numbers per metric and the number of pictures."""
    flat: dict[str, float] = {}
    for metric in METRICS:
        interval = means[metric]
        flat |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    return {name: round(value, 6) for name, value in flat.items()} | {"num_images": num_pictures}


def text_table(arms: Sequence[ArmScores]) -> str:
    """One line per arm: every metric and half the width of its interval."""
    width = max(len("arm"), *(len(arm.name) for arm in arms))
    lines = [f"{'arm':<{width}}  images" + "".join(f"{LABELS[metric]:>18}" for metric in METRICS)]
    for arm in arms:
        cells = "".join(f"{_cell(arm.means[metric]):>18}" for metric in METRICS)
        lines.append(f"{arm.name:<{width}}  {arm.num_pictures:>6}{cells}")
    return "\n".join(lines)


def changes(
    arms: Sequence[str], rows: Mapping[str, Mapping[str, Mapping[str, float]]], params: IntervalParams
) -> dict[str, dict[str, Interval]]:
    """What each arm changed against the one before it, by arm and metric, on the pictures that both have.

    ``rows`` holds the scores by arm, picture and metric. Every arm answers the same prompts from the same noise, so the
    differences are paired and their intervals narrower than the arms' own.
    """
    changed = {}
    for i, arm in enumerate(arms[1:]):
        before, after = rows[arms[i]], rows[arm]
        shared = sorted(before.keys() & after.keys())
        changed[arm] = {
            metric: mean_change([before[key][metric] for key in shared], [after[key][metric] for key in shared], params)
            for metric in METRICS
        }
    return changed


def _cell(interval: Interval) -> str:
    return f"{interval.value:.3f} +-{(interval.high - interval.low) / 2:.3f}"
