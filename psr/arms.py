"""The arms of the branch, and the folders that are called by an arm and a seed, such as ``rl-0``."""

import re

ARMS = {"things": ("sft_rows", "sft_things", "rl", "rl_plain"), "people": ("sft_clips", "sft_people")}
"""By what they draw: trained on rendered rows or clips, on synthetic rows, with and without the pairwise reward."""
COMPARED = {
    "things": (("sft_things", "sft_rows"), ("rl", "sft_things"), ("rl_plain", "sft_things"), ("rl", "rl_plain")),
    "people": (("sft_people", "sft_clips"),),
}
"""Pairs of arms whose difference the table shows."""


def arm_and_seed(name: str) -> tuple[str, int]:
    """The arm and the seed in the name of a folder.

    Raises:
        ValueError: the name is none of an arm and a seed.
    """
    known = [arm for arms in ARMS.values() for arm in arms]
    match = re.fullmatch(r"(\w+)-(\d+)", name)
    if match is None or match[1] not in known:
        raise ValueError(f"{name!r} should be one of {', '.join(known)} and a seed, such as rl-0")
    return match[1], int(match[2])
