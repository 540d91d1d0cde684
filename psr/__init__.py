"""A branch of the pipeline: PSR, from categories to synthetic samples, supervised and reinforced arms and a table."""

STAGES = (
    "rows", "texts", "targets", "objects", "encode", "train_single", "synthetic", "prompts", "train_multi", "train_rl",
    "generate", "score", "copying", "evaluate", "table",
)  # fmt: skip
"""Names of the stages, which are also those of their modules and of their sections of the settings."""
