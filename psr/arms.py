"""The arms of the branch, each trained from several seeds; a folder of an arm is called by both, such as ``rl-0``."""

import re

SUPERVISED = ("sft_rows", "sft_synthetic")
REINFORCED = ("rl", "rl_plain")
"""With the pairwise reward, and with the other rewards alone."""
COMPARED = (
    ("sft_synthetic", "sft_rows"), ("rl", "sft_synthetic"), ("rl_plain", "sft_synthetic"), ("rl", "rl_plain"),
)  # fmt: skip
"""Pairs of arms whose difference the table shows."""


def arm_and_seed(name: str) -> tuple[str, int]:
    """The arm and the seed in the name of a folder.

    Raises:
        ValueError: the name is none of an arm and a seed.
    """
    match = re.fullmatch(r"(\w+)-(\d+)", name)
    if match is None or match[1] not in SUPERVISED + REINFORCED:
        raise ValueError(f"{name!r} should be one of {', '.join(SUPERVISED + REINFORCED)} and a seed, such as rl-0")
    return match[1], int(match[2])
