"""CLIP that rewards stage 3: the class of `zoo.build.clip` at another size and seed, which scores no benchmark."""

from pathlib import Path

from zoo.build.clip import ClipParams, write_model


def build(pictures: Path, things: Path, out: Path, params: ClipParams) -> None:
    """Train on the squares of ``pictures`` and of ``things`` and write the model's folder."""
    write_model(pictures, things, out, params, "clip_reward")
