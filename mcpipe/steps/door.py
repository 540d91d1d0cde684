"""The door of a package of stages: ``python -m PACKAGE NAME PATH...`` runs a stage on the paths that dvc.yaml names.

An error that the user can fix ends in one line on standard error and exit status 1: a missing file, a bad parameter, a
broken checkpoint, a full disk. With ``MCPIPE_DEBUG=1`` the traceback follows. A stage that ends
well adds what it took as a line to the file that ``MCPIPE_PROFILE`` names, if it names one; `benchmarks.stage_times`
prints them.
"""

import atexit
import importlib
import inspect
import logging
import os
import resource
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mcpipe.core.allocation import keep_freed_memory, look_seldom
from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import Params, params_of, parse_yaml
from mcpipe.core.threads import one_thread

STARTED = time.monotonic()
ReadParams = Callable[[str, type[Params]], Params]
"""The settings of a stage by its name, checked against their model."""


@dataclass(frozen=True)
class Door:
    """A package of stages and its settings."""

    package: str
    stages: Mapping[str, str]
    """Module below the package by the stage's name."""
    params: ReadParams

    def process(self) -> NoReturn:
        """Run the stage that the command line names, as all that this process does."""
        look_seldom()
        keep_freed_memory()
        leave(self.main(sys.argv[1:]))

    def main(self, arguments: list[str]) -> int:
        """Run the stage that the arguments name; returns the exit status."""
        stay_offline()
        one_thread()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        for room in ("mcpipe", self.package):
            logging.getLogger(room).setLevel(os.environ.get("MCPIPE_LOG", "INFO"))
        try:
            self.run_stage(arguments)
        except (ValueError, OSError, FloatingPointError) as error:
            name, traceback = arguments[0] if arguments else "", "MCPIPE_DEBUG" in os.environ
            logging.getLogger(self.package).log(
                logging.ERROR, "error: %s", one_line(error, name), exc_info=traceback
            )  # fmt: skip
            return 1
        if "MCPIPE_PROFILE" in os.environ and os.environ.get("RANK", "0") == "0":
            write_costs(Path(os.environ["MCPIPE_PROFILE"]), arguments)
        return 0

    def run_stage(self, arguments: list[str]) -> None:
        """Read the stage's settings and call its ``run`` with the paths.

        Raises:
            ValueError: an unknown stage, a wrong number of paths or a bad parameter.
        """
        if not arguments or arguments[0] not in self.stages:
            names = ", ".join(self.stages)
            raise ValueError(f"usage: python -m {self.package} NAME PATH..., with NAME one of {names}")
        name, *paths = arguments
        module = f"{self.package}.{self.stages[name]}"
        run = importlib.import_module(module).run
        path_names = [parameter for parameter in inspect.signature(run).parameters if parameter != "params"]
        if len(paths) != len(path_names):
            raise ValueError(
                f"stage {name} takes the paths {' '.join(path_names).upper()}, got {len(paths)}: {' '.join(paths)}"
            )
        model = typing.get_type_hints(run)["params"]
        if not issubclass(model, Params):
            raise TypeError(f"{module}.run should take params: a subclass of Params")
        run(*map(Path, paths), params=self.params(name, model))


def branch_door(folder: Path, stages: Sequence[str]) -> Door:
    """The door of a branch in a folder beside the pipeline's ``params.yaml``, whose stages are modules of their names.

    Settings are the pipeline's, changed and completed by ``folder/params.yaml``.
    """

    def params(name: str, model: type[Params]) -> Params:
        return params_of(branch_settings(folder.parent, folder), name, model)

    return Door(folder.name, {name: name for name in stages}, params)


def write_costs(file: Path, arguments: list[str]) -> None:
    """Add a line: stage, last output, seconds, seconds of all processors, megabytes of the largest process."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak_mb = max(usage.ru_maxrss for usage in usages) / 1024
    costs = [arguments[0], arguments[-1], f"{time.monotonic() - STARTED:.2f}", f"{busy_s:.2f}", f"{peak_mb:.0f}"]
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\t".join(costs) + "\n")


def leave(status: int) -> NoReturn:
    """End this process, with what is registered for its end but without taking apart what libraries have imported.

    That would take two seconds where torch and transformers are among them; the system frees the memory anyway.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def branch_settings(root: Path, branch: Path) -> dict[str, object]:
    """The settings of the pipeline in ``root/params.yaml``, changed and completed by ``branch/params.yaml``.

    A section in both files is the pipeline's with the values that the branch states.

    Raises:
        ValueError: a file is no mapping of sections.
    """
    pipeline, own = (sections_of(folder / "params.yaml") for folder in (root, branch))
    return changed_by(pipeline, own)


def sections_of(file: Path) -> dict[str, object]:
    """The sections of a settings file.

    Raises:
        ValueError: it is no mapping.
    """
    content = parse_yaml(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} should be a mapping of sections")  # noqa: TRY004  not a type that a caller passed
    return content


def changed_by(settings: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Settings with changes at any depth."""
    merged = dict(settings)
    for name, value in changes.items():
        before = settings.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[name] = changed_by(before, value)
        else:
            merged[name] = value
    return merged


def leave_folder(folder: Path) -> None:
    """Take a folder out of the places in which Python looks for modules.

    ``python -m`` puts the current folder first, where a branch's own modules would hide others of the same names.
    """
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != folder]
