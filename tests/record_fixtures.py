"""Typed records to test with, and what refuses an item."""

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.schemas.curation import FramePair, Sample


def reason_of(check, *arguments):
    """The reason by which a check refuses its arguments; ``None`` if it accepts them."""
    try:
        check(*arguments)
    except RejectionError as error:
        return error.reason
    return None


def pool_face(key, reference, **changes):
    defaults = {
        "file": f"{key}.png",
        "attributes": {},
        "closeup": reference,
        "embedding": np.eye(4, dtype=np.float32)[0],
        "landmarks": np.zeros((5, 2), np.float32),
    }
    return PoolFace(key=key, reference=reference, **(defaults | changes))


def pair_prompt(prompt, *faces):
    return PairPrompt(key="+".join(faces), prompt=prompt, names=faces)


def generated(prompt, image, seed=0):
    return GeneratedImage(key=prompt.key, prompt=prompt.prompt, names=prompt.names, seed=seed, image=image)


def frame_pair(key, initial, middle=None):
    return FramePair(
        key=key,
        clip=f"{key}.mp4",
        times_s=(0.0, 1.0),
        num_frames=21,
        codec="h264",
        picture_px=(0, 0, initial.shape[1], initial.shape[0]),
        scores={"softness": 0.5},
        initial=initial,
        middle=initial if middle is None else middle,
    )


def sample_of_two(key, target, masks, faces, **changes):
    defaults = {
        "caption": "two people in a park: a person, a person",
        "names": ("person-00000", "person-00001"),
        "split": "train",
        "provenance": {"clip": f"{key}.mp4"},
        "body_masks": masks,
        "portraits": faces,
        "closeups": np.stack([target] * len(masks)),
        "closeup_masks": masks,
        "closeup_captions": ("one person in a park: a person",) * len(masks),
    }
    return Sample(key=key, target=target, masks=masks, references=faces, **(defaults | changes))
