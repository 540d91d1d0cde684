"""What every checkpoint of the zoo is worth on a world that nobody has seen: ``python -m zoo.scores --seed N``."""
