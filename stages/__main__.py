"""The one door: ``python -m stages NAME IN... OUT...`` runs a stage on the paths that dvc.yaml names.

An error that the user can fix ends in one line on standard error and exit status 1: a missing file, a bad parameter, a
broken checkpoint, a full disk. With ``MCPIPE_DEBUG=1`` the traceback follows. A stage that ends well adds what it took
as a line to the file that ``MCPIPE_PROFILE`` names, if it names one; `benchmarks.stage_times` prints them.
"""

import importlib
import inspect
import logging
import os
import resource
import sys
import time
import typing
from pathlib import Path

from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import Params, read_params
from mcpipe.core.threads import one_thread
from stages import STAGES

SETTINGS = Path("params.yaml")
logger = logging.getLogger("stages")
STARTED = time.monotonic()


def main(arguments: list[str]) -> int:
    """Run the stage that the arguments name; returns the exit status."""
    stay_offline()
    one_thread()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for room in ("mcpipe", "stages"):
        logging.getLogger(room).setLevel(os.environ.get("MCPIPE_LOG", "INFO"))
    try:
        run_stage(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        name = arguments[0] if arguments else ""
        logger.log(logging.ERROR, "error: %s", one_line(error, name), exc_info="MCPIPE_DEBUG" in os.environ)
        return 1
    if "MCPIPE_PROFILE" in os.environ and os.environ.get("RANK", "0") == "0":
        write_costs(Path(os.environ["MCPIPE_PROFILE"]), arguments)
    return 0


def run_stage(arguments: list[str]) -> None:
    """Read the stage's settings and call its ``run`` with the paths.

    Raises:
        ValueError: an unknown stage, a wrong number of paths or a bad parameter.

    """
    if not arguments or arguments[0] not in STAGES:
        raise ValueError(f"usage: python -m stages NAME PATH..., with NAME one of {', '.join(STAGES)}")
    name, *paths = arguments
    run = importlib.import_module(f"stages.{STAGES[name]}").run
    path_names = [parameter for parameter in inspect.signature(run).parameters if parameter != "params"]
    if len(paths) != len(path_names):
        raise ValueError(
            f"stage {name} takes the paths {' '.join(path_names).upper()}, got {len(paths)}: {' '.join(paths)}"
        )
    model = typing.get_type_hints(run)["params"]
    if not issubclass(model, Params):
        raise TypeError(f"stages.{STAGES[name]}.run should take params: a subclass of Params")
    run(*map(Path, paths), params=read_params(SETTINGS, name, model))


def write_costs(file: Path, arguments: list[str]) -> None:
    """Add a line: stage, last output, seconds, seconds of all processors, megabytes of the largest process."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak_mb = max(usage.ru_maxrss for usage in usages) / 1024
    costs = [arguments[0], arguments[-1], f"{time.monotonic() - STARTED:.2f}", f"{busy_s:.2f}", f"{peak_mb:.0f}"]
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\t".join(costs) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
