"""The training loop and the common parts of training stages: data, checkpoints, curves, previews, outputs."""
