"""A branch of the pipeline: FocusDPO and its baselines, from the default pipeline's outputs to a table."""

STAGES = {
    "dip": "dip",
    "encode": "encode",
    "masks": "masks",
    "train": "train",
    "generate": "generate",
    "evaluate": "evaluate",
    "table": "table",
}
"""Stage name, which is also its module's, and its section of the settings."""
