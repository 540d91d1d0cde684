"""The scores of one arm of people, measured as the pipeline measures its own."""

from mcpipe.steps.evaluate import write_branch_scores as run

__all__ = ["run"]
