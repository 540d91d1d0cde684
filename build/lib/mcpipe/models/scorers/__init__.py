"""Frozen models whose scores are metrics or rewards."""
