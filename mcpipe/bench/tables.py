"""Scores of every arm as tables: for a terminal, and as cells for the report page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mcpipe.bench import object_columns as objects
from mcpipe.bench.by_number import ByNumber, number_lines
from mcpipe.bench.intervals import Interval, IntervalParams, mean_change
from mcpipe.bench.psr import columns as psr
from mcpipe.core.records import JSON

AVERAGED = ("clip_t", "face_sim", "dino_i", "clip_i", "hps")
"""The columns of the paper's tables for people; "overall" is their plain mean, as in the paper's last column."""
METRICS = (*AVERAGED, "overall", "detection_rate", "face_sim_heldout")
"""Metrics for which higher is better and a missing subject counts 0."""
OPTIONAL = ("pick_score",)
"""Metrics by scorers that a configuration may leave out; higher is better."""
FAULTS = ("swap_rate", "copy_paste")
"""Metrics of detected subjects for which lower is better."""
COLUMNS = METRICS + OPTIONAL + FAULTS
CONTROLS = (
    "face_sim_others",
    "face_sim_floor",
    "face_sim_swapped",
    "face_sim_ceiling",
    "identity_lift",
    "own_minus_cross",
    "duplicate_rate",
    "leak_rate",
    "leak_rate_floor",
    "binding",
)
"""Controls of Face-Sim: its value without its cause, its ceiling, and confusions between people."""
OBSERVED = ("own_minus_cross", "leak_rate", "duplicate_rate", "binding")
"""Controls that only images with enough located faces have; of leaks and duplicates less is better."""
ALL_METRICS = COLUMNS + CONTROLS + objects.OWN_CONTROLS
LABELS = {
    "clip_t": "CLIP-T",
    "face_sim": "Face-Sim",
    "dino_i": "DINO-I",
    "clip_i": "CLIP-I",
    "hps": "HPS",
    "overall": "Overall",
    "detection_rate": "Detected",
    "face_sim_heldout": "Face-Sim*",
    "pick_score": "PickScore",
    "swap_rate": "Swapped",
    "copy_paste": "Copied",
    "face_sim_others": "Other people",
    "face_sim_floor": "No reference",
    "face_sim_swapped": "Reordered",
    "face_sim_ceiling": "Ceiling",
    "identity_lift": "Identity lift",
    "own_minus_cross": "Own - cross",
    "duplicate_rate": "Duplicates",
    "leak_rate": "Leaks",
    "leak_rate_floor": "Misread",
    "binding": "Binding",
} | (psr.LABELS | objects.LABELS)
HEADLINE = ("overall", "face_sim", "identity_lift", "object_lift")
"""Metrics of every arm in ``dvc exp show``: few, so that experiments fit side by side on a terminal."""
MEANINGS = {
    "clip_t": "cosine of the picture and its prompt in CLIP space",
    "face_sim": "cosine of each reference face and the face matched with it, each at most once; negative ones count 0",
    "dino_i": "cosine of each reference and its located subject in DINO space",
    "clip_i": "cosine of each reference and its located subject in CLIP space",
    "hps": "HPS v2.1, a model of human preference; a cosine, without the customary factor of 100",
    "overall": "plain mean of the five before",
    "detection_rate": "share of the subjects for which a face was found",
    "face_sim_heldout": "Face-Sim by a recogniser that no reward was computed with",
    "pick_score": "PickScore, a model of human preference that rewards nothing; a cosine times its own factor",
    "swap_rate": "share of the faces found that resemble another wanted person more than their own; lower is better",
    "copy_paste": "how much nearer pose and background of a face are to its own reference than to those of the pool: "
    "1 a copy, 0 chance; lower is better",
    "face_sim_others": "Face-Sim of pictures drawn from other people's references, same text and noise",
    "face_sim_floor": "Face-Sim of pictures drawn without references, same text and noise",
    "face_sim_swapped": "Face-Sim of pictures drawn from the references in another order; should equal Face-Sim",
    "face_sim_ceiling": "Face-Sim of held-out real targets after the VAE, compared with their own references",
    "identity_lift": "Face-Sim less that with other people's references: what the references add to the text",
    "own_minus_cross": "cosine of a located face and its own reference, less that with the other reference",
    "duplicate_rate": "share of pictures in which two faces are nearest to the same reference; lower is better",
    "leak_rate": "share of the located faces with a lasting trait of the other person, read by CLIP; lower is better",
    "leak_rate_floor": "the same of the references themselves, where nothing can leak: the error of the reader",
    "binding": "share of a reference's attention to the two located faces that is on its own; chance 0.5",
} | (psr.MEANINGS | objects.MEANINGS)
POLICY_CONTROLS = (
    "Face-Sim says something of references only where it is above its values without them and with other people's. "
    "Intervals are over people, since pictures that share a person are not independent."
)
"""Note beside every table of controls."""
POLICY = (
    "A subject without a face in the picture, and every subject of a missing picture, counts 0 and stays in the mean. "
    "Higher is better, except for Swapped and Copied, which are rates over the faces found."
)
"""Note beside every table, because other papers skip such images or compare whole images."""
POLICY_PUBLIC = (
    "The whole picture is compared with each subject's reference, nothing is located; people also count for Face-Sim. "
    "A person without a face in the picture, and every subject of a missing picture, counts 0 and stays in the mean. "
    "Overall is the mean of CLIP-T, DINO-I, CLIP-I and HPS."
)
"""Note beside every score of a public suite."""
REWARDS = {"models.reward_clip": ("models.clip", "CLIP-T and CLIP-I"), "models.reward_hps": ("models.hps", "HPS")}
"""Reward models of stage 3 in a protocol, each with the scorer of its kind and that scorer's metrics."""
PEOPLE = "mcpipe"
"""The benchmark of the pipeline itself, for which every metric is defined."""
CONTROLLED = {
    PEOPLE: ("face_sim", CONTROLS, POLICY_CONTROLS),
    objects.SUITE: ("dino_i", objects.CONTROLS, objects.POLICY_CONTROLS),
}
"""Suites with controls: the metric, its controls, and the note beside them."""
ALWAYS = ("clip_t", "hps")
"""Metrics of every image of every suite."""


@dataclass(frozen=True)
class ArmScores:
    """Scores of one arm."""

    name: str
    means: Mapping[str, Interval]
    """Intervals by metric, for the metrics of the suite."""
    num_pictures: int
    suite: str = PEOPLE
    """The prompts that were answered; scores of different suites cannot be compared."""
    num_missing: int = 0
    """Number of images that are missing or unreadable, and count 0."""
    protocol: Mapping[str, JSON] = field(default_factory=dict)
    """Digests of prompts, references and scorers, and settings; empty in results of older versions."""
    by_number: ByNumber = field(default_factory=dict)
    """Means by the number of people in a prompt; empty if all prompts have one number."""


def from_metrics(name: str, metrics: Mapping[str, JSON]) -> ArmScores:
    """The scores in a ``metrics.json``.

    Raises:
        ValueError: a number is missing, or a value is not a number.
    """
    protocol = metrics.get("footing", {})
    if not isinstance(protocol, dict):
        raise ValueError(f"footing should be a mapping, not {protocol!r}; evaluate or score it again")  # noqa: TRY004
    suite = str(metrics.get("suite", PEOPLE))
    present = [metric for metric in (*ALL_METRICS, *psr.METRICS) if metric in metrics]
    try:
        for metric in {PEOPLE: METRICS, psr.SUITE: ("preference",)}.get(suite, ALWAYS):
            metrics[metric]
        means = {
            metric: Interval(*(_number(metrics, f"{metric}{end}") for end in ("", "_low", "_high")))
            for metric in present
        }
        num_pictures, num_missing = (int(_number(metrics, name)) for name in ("num_images", "num_missing"))
        by_number = metrics.get("by_number", {})
        assert isinstance(by_number, dict), "written by as_metrics"
        return ArmScores(name, means, num_pictures, suite, num_missing, protocol, cast(ByNumber, by_number))
    except KeyError as error:
        raise ValueError(f"metrics of {name} lack {error}; evaluate or score it again") from error


def _number(metrics: Mapping[str, JSON], name: str) -> float:
    value = metrics[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} should be a number, not {value!r}; evaluate or score it again")  # noqa: TRY004
    return value


def as_metrics(scores: ArmScores) -> dict[str, JSON]:
    """The content of a ``metrics.json``: three numbers per metric, numbers of images, footing, suite if not ours."""
    flat: dict[str, JSON] = {}
    for metric, interval in scores.means.items():
        flat |= {
            metric: round(interval.value, 6),
            f"{metric}_low": round(interval.low, 6),
            f"{metric}_high": round(interval.high, 6),
        }
    flat |= {"num_images": scores.num_pictures, "num_missing": scores.num_missing, "footing": dict(scores.protocol)}
    if scores.by_number:
        flat["by_number"] = {number: dict(row) for number, row in scores.by_number.items()}
    return flat if scores.suite == PEOPLE else flat | {"suite": scores.suite}


def as_headline(scores: ArmScores) -> dict[str, dict[str, float]]:
    """The content of a ``headline.json``: a few means under the arm's name."""
    means = {metric: round(scores.means[metric].value, 4) for metric in HEADLINE if metric in scores.means}
    return {scores.name.removeprefix("train_"): means}


def comparable(arms: Sequence[ArmScores]) -> tuple[list[ArmScores], list[str]]:
    """The arms with the same protocol as the first arm of their suite, and a line for each arm that is left out.

    Arms of the pipeline should come first. Reward models may differ: they do not change what a score means.
    """
    first: dict[str, ArmScores] = {}
    kept, lines = [], []
    for arm in arms:
        if not arm.protocol:
            reason = "it is older than this version and does not name its prompts and scorers"
        else:
            baseline = first.setdefault(arm.suite, arm)
            names = sorted((arm.protocol.keys() | baseline.protocol.keys()) - REWARDS.keys())
            others = [name for name in names if arm.protocol.get(name) != baseline.protocol.get(name)]
            reason = f"not the same {', '.join(others)} as {baseline.name}" if others else ""
        if reason:
            lines.append(f"{arm.name} is left out: {reason}; evaluate or score it again")
        else:
            kept.append(arm)
    return kept, lines


def rewarded_metrics(arms: Iterable[ArmScores]) -> list[str]:
    """A sentence for the metrics of each scorer that also rewards stage 3, by the digests in the protocols."""
    protocols = [arm.protocol for arm in arms if arm.suite == PEOPLE]
    return [
        f"{metrics} come from the very model that rewards stage 3, which may have learned to please it."
        for reward, (scorer, metrics) in REWARDS.items()
        if any(reward in protocol and protocol[reward] == protocol.get(scorer) for protocol in protocols)
    ]


def text_table(arms: Sequence[ArmScores]) -> str:
    """A table per suite with a line per arm: every metric, half the width of its interval, the suite's policy."""
    lines = []
    for suite in sorted({arm.suite for arm in arms}, key=lambda name: (name != PEOPLE, name)):
        if suite != PEOPLE:
            lines += ["", f"{suite}:"]
        answered = [arm for arm in arms if arm.suite == suite]
        width = max(len("arm"), *(len(arm.name) for arm in answered))
        lines.append(f"{'arm':<{width}}  images  missing" + _header(columns := _present(columns_of(suite), answered)))
        lines += [
            f"{arm.name:<{width}}  {arm.num_pictures:>6}  {arm.num_missing:>7}" + _cells(columns, arm)
            for arm in answered
        ]
        lines.append(policy_of(suite))
        if suite == PEOPLE:
            lines += rewarded_metrics(answered)
        if suite in CONTROLLED and (controls := _present(CONTROLLED[suite][1], answered)):
            lines += ["", f"{'controls':<{width}}" + _header(beside := [CONTROLLED[suite][0], *controls])]
            lines += [f"{arm.name:<{width}}" + _cells(beside, arm) for arm in answered]
            lines.append(CONTROLLED[suite][2])
        lines += number_lines({arm.name: arm.by_number for arm in answered}, LABELS, METRICS)
    return "\n".join(lines)


def columns_of(suite: str) -> Sequence[str]:
    """The metrics that a suite may have, in the order of a table's columns."""
    return {psr.SUITE: psr.METRICS, objects.SUITE: objects.METRICS}.get(suite, COLUMNS)


def policy_of(suite: str) -> str:
    """The note beside every table of a suite."""
    return {PEOPLE: POLICY, psr.SUITE: psr.POLICY, objects.SUITE: objects.POLICY}.get(suite, POLICY_PUBLIC)


def _present(metrics: Sequence[str], arms: Sequence[ArmScores]) -> list[str]:
    """The metrics of at least one arm."""
    return [metric for metric in metrics if any(metric in arm.means for arm in arms)]


def _header(metrics: Sequence[str]) -> str:
    return "".join(f"{LABELS[metric]:>16}" for metric in metrics)


def _cells(metrics: Sequence[str], arm: ArmScores) -> str:
    return "".join(f"{_cell(arm.means.get(metric)):>16}" for metric in metrics)


def changes(
    arms: Sequence[str], rows: Mapping[str, Mapping[str, Mapping[str, Any]]], params: IntervalParams
) -> dict[str, dict[str, Interval]]:
    """The mean difference of each arm and the arm before it, by arm and metric, on the images that both have.

    ``rows`` holds the scores by arm, image and metric, and the image's ``references``, over which intervals are taken.
    Every arm draws the same prompts from the same noise, so the differences are paired, and their intervals are
    narrower than the arms' own.
    """
    changed = {}
    for i, arm in enumerate(arms[1:]):
        before, after = rows[arms[i]], rows[arm]
        changed[arm] = {}
        for metric in COLUMNS:
            shared = [key for key in sorted(before.keys() & after.keys()) if _both(before[key], after[key], metric)]
            if len(shared) > 1:
                values = [before[key][metric] for key in shared], [after[key][metric] for key in shared]
                units = [after[key]["references"] or [key] for key in shared]
                changed[arm][metric] = mean_change(*values, units, params)
    return changed


def _both(before: Mapping[str, float | None], after: Mapping[str, float | None], metric: str) -> bool:
    return before[metric] is not None and after[metric] is not None


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.3f} +-{(interval.high - interval.low) / 2:.3f}"
