"""Processes that train together on the processors of one machine, started by the training itself.

Small networks gain little from a second thread, but a second process takes half of the samples. Their number changes
the last digits of a result, since sums over processes have an order of their own; hence it is a setting. On GPUs, and
where a launcher such as torchrun has started this process, the launcher decides (docs/hardware.md).
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from math import gcd
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
from accelerate.utils import parse_flag_from_env
from pydantic import Field
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, ProcessRaisedException, start_processes

from mcpipe.core.params import TakenFrom

START = "fork" if sys.platform == "linux" else "spawn"
"""A fork keeps what is imported; elsewhere system libraries forbid it."""
USER_ERRORS = (ValueError, OSError, FloatingPointError)
"""Errors that a user can mend: the stage reports them in one line, without a traceback."""
SIGNALS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""What signals do in every process, whatever its parent did with them."""

Processes = Annotated[int, Field(ge=1), TakenFrom("training.processes")]
"""Number of processes that train together where there is no GPU; see `together`."""


def together(most: int, num_parts: int, work: Callable[..., None], *arguments: object) -> None:
    """Call a function of a module in processes that train together, or here if there is nothing to start.

    Their number is the greatest common divisor of ``most`` and of the parts that they share equally.

    Raises:
        ValueError: what the function raises in the first process that fails.
        OSError: likewise, or a process was killed.
        FloatingPointError: likewise.
        ProcessRaisedException: any other error; the message has its traceback.
    """
    num_processes = gcd(most, num_parts)
    if num_processes == 1 or not starts_processes():
        work(*arguments)
        return
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    errors = get_context(START).SimpleQueue()
    with TemporaryDirectory() as folder:
        store = (Path(folder) / "store").as_uri()
        given = (num_processes, store, errors, work, arguments)
        processes = start_processes(_train, given, num_processes, join=False, daemon=True, start_method=START)
        assert isinstance(processes, ProcessContext), "unless it is to join them"
        try:
            while not processes.join():
                pass
        except (ProcessRaisedException, ProcessExitedException) as error:
            if not errors.empty():
                raise errors.get() from error
            if killed := _killed(processes):
                raise ChildProcessError(f"{killed}; did memory run out? Run the stage again to go on") from error
            raise


def starts_processes(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a training starts its processes itself: without a GPU and without a launcher."""
    return "WORLD_SIZE" not in environment and (
        parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    )


def _train(
    rank: int,
    num_processes: int,
    store: str,
    errors: "SimpleQueue[Exception]",
    work: Callable[..., None],
    arguments: tuple[object, ...],
) -> None:
    """One of the processes. It passes on its own error before others lose the connection because of it."""
    gc.freeze()  # what a fork inherits is not its own to free
    for number, handler in SIGNALS.items():
        signal.signal(number, handler)
    size = str(num_processes)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    if rank > 0:
        logging.disable(logging.WARNING)  # the first one talks
    try:
        init_process_group("gloo", init_method=store, rank=rank, world_size=num_processes)
        work(*arguments)
    except USER_ERRORS as error:
        errors.put(error)
        raise
    destroy_process_group()


def _killed(processes: ProcessContext) -> str:
    """Which process was ended by a signal that did not come from here; empty if none was."""
    for rank, process in enumerate(processes.processes):
        if process.exitcode is not None and process.exitcode < 0 and -process.exitcode != signal.SIGTERM:
            name = signal.Signals(-process.exitcode).name
            return f"process {rank + 1} of {len(processes.processes)} of the training was ended by {name}"
    return ""
