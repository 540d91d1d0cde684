"""Prompts of the benchmark and of stage 3, and the references that they name."""

from pathlib import Path

from mcpipe.steps.object_prompts import ObjectPromptsParams, write_object_prompts


def run(samples: Path, prompts: Path, params: ObjectPromptsParams) -> None:
    """Write a prompt for every held-out sample, and for some of the others."""
    write_object_prompts(samples, prompts, params)
