"""A branch of the pipeline: FocusDPO and its baselines, from the default pipeline's outputs to a table."""

STAGES = ("dip", "encode", "masks", "train", "generate", "evaluate", "table")
"""Names of the stages, which are also those of their modules and of their sections of the settings."""
