"""A branch of the pipeline: several given objects in one image, from rows of objects to the benchmark's table."""

STAGES = (
    "rows", "objects", "prompts", "encode", "train_single", "train_multi", "train_rl", "generate", "score",
)  # fmt: skip
"""Names of the stages, which are also those of their modules and of their sections of the settings."""
