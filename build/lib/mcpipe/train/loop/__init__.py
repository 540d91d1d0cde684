"""The one training loop and what every training stage shares: data, checkpoints, curves, previews, outputs."""
