"""How often Python looks for objects that refer to each other and that nothing else refers to."""

import gc

YOUNG_OBJECTS = 100_000
"""New objects after which it looks among them. Python's own 700 would have it look hundreds of times while libraries
are imported, whose objects all stay."""


def look_seldom() -> None:
    """Let this process look for cycles after `YOUNG_OBJECTS` new objects; it changes no result."""
    gc.set_threshold(YOUNG_OBJECTS)
