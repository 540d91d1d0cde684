"""Scores of every checkpoint of the zoo on a new world: ``python -m zoo.scores --seed N``."""
