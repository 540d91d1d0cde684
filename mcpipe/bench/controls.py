"""References of the benchmark's controls: the same texts and noise, with the cause of a likeness taken away.

no_references   no token of the image can attend to a reference: what the text alone gives
other_people    faces of the pool that the prompt does not name: what any references give
swapped         the same people in another order, which is no information
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

ControlKind = Literal["no_references", "other_people", "swapped"]
METRIC_OF: dict[ControlKind, str] = {
    "no_references": "face_sim_floor",
    "other_people": "face_sim_others",
    "swapped": "face_sim_swapped",
}
"""The name of each control's Face-Sim."""
CONTROLS = "controls"
"""Folder of the controls, beside an arm's images."""
TARGETS = "targets"
"""Folder of the real targets after the VAE, among the controls."""
STREAM = 0xC0
"""Keeps these random numbers apart from others that are drawn from the same seed."""


def control_faces(
    kind: ControlKind, faces: Sequence[tuple[str, ...]], pool: Sequence[str], seed: int
) -> list[tuple[str, ...]]:
    """The faces whose references a control gives to every prompt, by those that the prompt names.

    Raises:
        ValueError: the pool has too few other people.
    """
    if kind == "no_references":
        return [() for _ in faces]
    if kind == "swapped":
        return [(*own[1:], *own[:1]) for own in faces]
    return [_others(own, sorted(pool), seed, position) for position, own in enumerate(faces)]


def _others(own: tuple[str, ...], pool: Sequence[str], seed: int, position: int) -> tuple[str, ...]:
    rest = [face for face in pool if face not in own]
    if len(rest) < len(own):
        raise ValueError(
            f"the control other_people needs {len(own)} faces beside those of a prompt, but the pool has {len(rest)} "
            "more; add portraits, or take it out of generate.controls.kinds"
        )
    random = np.random.default_rng((STREAM, seed, position))
    return tuple(rest[index] for index in random.permutation(len(rest))[: len(own)])
