"""Leaks: a located face with a lasting trait of the other person of its prompt.

Read by CLIP between two descriptions: that of the face's own person, and the same with one phrase of the other's. A
reader errs, so its error on the references themselves, where nothing can have leaked, stands beside every leak rate.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mcpipe.models.protocols import ImageTextEncoder

Phrases = tuple[str, ...]
"""Phrases about one person, one per trait in a fixed order; empty where there is nothing to say."""


def described(phrases: Phrases) -> str:
    """A sentence about one person: "a person with tan skin, short brown hair and glasses"."""
    said = [phrase for phrase in phrases if phrase]
    listed = f"{', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else "".join(said)
    return f"a person with {listed}" if listed else "a person"


def leaked_descriptions(own: Phrases, others: Sequence[Phrases]) -> Iterator[str]:
    """Every description of a person with one phrase of somebody else in the place of the person's own."""
    for other in others:
        for place, (mine, theirs) in enumerate(zip(own, other, strict=True)):
            if mine != theirs:
                yield described((*own[:place], theirs, *own[place + 1 :]))


def has_leak(
    face: Float[np.ndarray, " C"], own: Phrases, others: Sequence[Phrases], clip: ImageTextEncoder
) -> bool | None:
    """Whether a face is nearer to a description with another's phrase than to its person's own description.

    ``face`` is the embedding of a crop, of unit length. ``None`` if no phrase differs, so that no leak could be seen.
    """
    leaked = list(leaked_descriptions(own, others))
    if not leaked:
        return None
    cosines = clip.texts([described(own), *leaked]) @ face
    return bool(cosines[1:].max() > cosines[0])


def leak_rate(
    faces: Mapping[int, Float[np.ndarray, " C"]], phrases: Sequence[Phrases], clip: ImageTextEncoder
) -> float | None:
    """Share of the faces of an image with a leak, in [0, 1]; ``None`` if none could be seen in any of them.

    ``faces`` holds the embedding of the crop assigned to each located person, by the person's index in ``phrases``.
    """
    verdicts = [
        has_leak(face, phrases[person], [*phrases[:person], *phrases[person + 1 :]], clip)
        for person, face in faces.items()
    ]
    seen = [verdict for verdict in verdicts if verdict is not None]
    return float(np.mean(seen)) if seen else None
