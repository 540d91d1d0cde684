"""Freed memory stays with the process, unless the environment says otherwise."""

import os
import sys

import pytest
from processes import output

# Sixteen megabytes go back and forth twenty times; each time they are 4,096 new pages, unless they were kept.
SCRIPT = """
import mmap, resource, sys
from mcpipe.core.allocation import keep_freed_memory
keep_freed_memory()
bytearray(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(b"x") * (1 << 24)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * mmap.PAGESIZE)
"""


def faulted_bytes(**environment):
    return int(output([sys.executable, "-c", SCRIPT], env=os.environ | environment))


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="an option of glibc")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise():
    assert faulted_bytes() < 2 * (1 << 24)
    assert faulted_bytes(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 10 * (1 << 24)
