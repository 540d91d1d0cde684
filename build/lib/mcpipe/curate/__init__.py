"""Decisions about data: which clips, people and sentences are worth learning from, and why the others are not."""
