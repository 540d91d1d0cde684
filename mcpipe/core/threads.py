"""One thread per process, so that sums have the same order on every machine."""

import os


def one_thread() -> None:
    """Keep numerical libraries, which look at the environment when imported, to one thread unless it says otherwise.

    With another number of threads results differ in their last digits, and DVC would take them for other results. Small
    networks gain nothing from more; large ones run on a GPU, and many clips in several processes
    (`mcpipe.execution.workers`).
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
