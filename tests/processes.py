"""Processes that tests start: each is killed after a time and fails its test, so that no run of the tests hangs."""

import contextlib
import gc
import os
import pty
import select
import signal
import subprocess
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

PATIENCE_S = 300
"""Seconds for one process: many times what any takes, also on a machine with other work."""


def completed(command, **options):
    """Run a command to its end, whatever its status, with its output as text."""
    options = {"capture_output": True, "encoding": "utf-8", "stdin": subprocess.DEVNULL} | options
    return subprocess.run([str(word) for word in command], check=False, timeout=PATIENCE_S, **options)


def output(command, **options):
    """Standard output of a command, which has to succeed."""
    done = completed(command, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


def started(command, **options):
    """Run a command that leaves processes behind, which has to succeed.

    It has no pipe: a process that goes on would keep its end open, for which `completed` waits.
    """
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    done = subprocess.run([str(word) for word in command], check=False, timeout=PATIENCE_S, **options)
    assert done.returncode == 0, " ".join(map(str, command))


def forked(target, *arguments, daemon=None):
    """A process that is forked when it starts.

    It frees no garbage that it inherits: threads that a decoder of video would wait for are not there in a fork.
    """

    def run():
        gc.freeze()
        target(*arguments)

    return get_context("fork").Process(target=run, daemon=daemon)


def exit_code(process: BaseProcess) -> int | None:
    """Exit code of a process of `multiprocessing`, which is killed if it does not end."""
    try:
        process.join(PATIENCE_S)
        assert not process.is_alive(), f"{process.name} was still running after {PATIENCE_S} s"
    finally:
        process.kill()
        process.join(PATIENCE_S)
    return process.exitcode


def type_into(command, text, folder):
    """Run a command at a terminal of its own, type a text and wait until the command ends."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvp(command[0], command)
    os.write(terminal, text.encode())
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.suppress(OSError):  # how a terminal ends
        while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0] and os.read(terminal, 1024):
            pass
    in_time = time.monotonic() < deadline
    os.kill(process, signal.SIGKILL)  # without effect on one that has ended
    os.waitpid(process, 0)
    os.close(terminal)
    assert in_time, f"{command[0]} was still running after {PATIENCE_S} s"
