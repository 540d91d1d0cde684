"""Prompts of the benchmark from held-out rows of the world, and those of stage 3 from synthetic samples."""

from pathlib import Path

from mcpipe.steps.object_prompts import ObjectPromptsParams, write_object_prompts


def run(samples: Path, things: Path, prompts: Path, params: ObjectPromptsParams) -> None:
    """Write a prompt for every held-out sample of the world, and for some of the synthetic ones."""
    write_object_prompts(samples, prompts, params, of_training=things)
