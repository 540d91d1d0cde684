"""HPS v2.1 that rewards stage 3: the class of `zoo.build.hps` at another size and seed, which scores no benchmark."""

from pathlib import Path

from zoo.build.hps import HpsParams, write_model


def build(pictures: Path, out: Path, params: HpsParams) -> None:
    """Train on the squares of ``pictures`` and write the checkpoint with its model configuration."""
    write_model(pictures, out, params, "hps_reward")
