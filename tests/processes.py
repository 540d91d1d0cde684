"""Processes that tests start: each is killed after a time and fails its test, so that no run of the tests hangs."""

import subprocess
from multiprocessing.process import BaseProcess

PATIENCE_S = 240
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


def exit_code(process: BaseProcess) -> int | None:
    """Exit code of a process of `multiprocessing`, which is killed if it does not end."""
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join(PATIENCE_S)
        raise AssertionError(f"{process.name} was still running after {PATIENCE_S} s")
    return process.exitcode
