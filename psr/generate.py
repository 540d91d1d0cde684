"""The benchmark's images of one arm, drawn as the pipeline draws its own."""

from pathlib import Path

from mcpipe.steps.generate import GenerateParams, write_images


def run(  # noqa: PLR0913  one argument per path
    prompts: Path, samples: Path, model: Path, generator: Path, images: Path, params: GenerateParams
) -> None:
    """Write an image for every prompt of the benchmark, and its controls."""
    write_images(prompts, samples, model, generator, images, params)
