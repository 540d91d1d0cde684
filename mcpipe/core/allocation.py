"""How Python and the C library treat the memory of a process. It changes no result."""

import ctypes
import gc
import os
import sys

YOUNG_OBJECTS = 100_000
"""New objects after which Python looks among them for some that refer to each other and that nothing else refers to.
Its own 700 would have it look hundreds of times while libraries are imported, whose objects all stay."""

KEPT_BYTES = 1 << 30
"""Freed memory that the C library keeps for what is allocated next."""
MAPPED_BYTES = 1 << 28
"""Size from which an allocation is a mapping of its own, which goes back to the system as soon as it is freed."""
OPTIONS = {"MALLOC_TRIM_THRESHOLD_": (-1, KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": (-3, MAPPED_BYTES)}
"""glibc's environment variables, the numbers of their options (malloc.h), and our values."""


def look_seldom() -> None:
    """Let this process look for cycles after `YOUNG_OBJECTS` new objects."""
    gc.set_threshold(YOUNG_OBJECTS)


def keep_freed_memory() -> None:
    """Let glibc keep memory that was freed, and processes that are forked from this one too.

    A network allocates and frees the same megabytes in every layer. Memory that went back to the system comes again as
    new pages, which it has to clear one by one. An option that the environment sets stays as it is; other C libraries
    have no such options.
    """
    if sys.platform != "linux" or (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        return
    for name, (option, value) in OPTIONS.items():
        if name not in os.environ:
            set_option(option, value)
