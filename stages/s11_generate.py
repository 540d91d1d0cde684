"""Stage 11: one arm's images for every prompt of the benchmark.

Departure from the paper, which does not specify its sampler: Euler steps along the ODE, settings in params.yaml.
"""

from pathlib import Path

from mcpipe.steps.generate import GenerateParams, write_images


def run(pairs: Path, samples: Path, model: Path, generator: Path, images: Path, params: GenerateParams) -> None:
    """Write an image for every prompt in ``pairs/bench``, its controls, and targets of ``samples`` after the VAE.

    Raises:
        FileNotFoundError: the arm has no trained adapter.
        ValueError: references have another size than in training, or the pool is too small for a control.
    """
    write_images(pairs, samples, model, generator, images, params)
