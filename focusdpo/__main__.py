"""The door of the branch: ``python -m focusdpo NAME PATH...`` runs a stage on the paths that dvc.yaml names.

Settings are those of the pipeline in ``../params.yaml``, and the branch's own in ``params.yaml``, which repeat none.
"""

import importlib
import inspect
import logging
import os
import sys
import typing
from pathlib import Path

from focusdpo import STAGES
from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import Params, params_of, parse_yaml
from mcpipe.core.threads import one_thread

ROOT = Path(__file__).resolve().parents[1]
logger = logging.getLogger("focusdpo")


def main(arguments: list[str]) -> int:
    """Run the stage that the arguments name; returns the exit status."""
    stay_offline()
    one_thread()
    # `python -m` puts the current folder first, where our own modules would hide others of the same names.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for room in ("mcpipe", "focusdpo"):
        logging.getLogger(room).setLevel(os.environ.get("MCPIPE_LOG", "INFO"))
    try:
        run_stage(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        name = arguments[0] if arguments else ""
        logger.log(logging.ERROR, "error: %s", one_line(error, name), exc_info="MCPIPE_DEBUG" in os.environ)
        return 1
    return 0


def settings() -> dict[str, object]:
    """All sections of both files of settings.

    Raises:
        ValueError: a section stands in both.
    """
    files = (ROOT / "params.yaml", ROOT / "focusdpo" / "params.yaml")
    pipeline, own = (parse_yaml(file.read_text(encoding="utf-8")) for file in files)
    if not isinstance(pipeline, dict) or not isinstance(own, dict):
        raise ValueError("settings should be mappings of sections")  # noqa: TRY004  not a type that a caller passed
    if both := sorted(pipeline.keys() & own.keys()):
        raise ValueError(f"{files[1]} repeats the section {both[0]} of {files[0]}; remove it")
    return pipeline | own


def run_stage(arguments: list[str]) -> None:
    """Read the stage's settings and call its ``run`` with the paths.

    Raises:
        ValueError: an unknown stage, a wrong number of paths or a bad parameter.
    """
    if not arguments or arguments[0] not in STAGES:
        raise ValueError(f"usage: python -m focusdpo NAME PATH..., with NAME one of {', '.join(STAGES)}")
    name, *paths = arguments
    run = importlib.import_module(f"focusdpo.{name}").run
    path_names = [parameter for parameter in inspect.signature(run).parameters if parameter != "params"]
    if len(paths) != len(path_names):
        raise ValueError(f"stage {name} takes the paths {' '.join(path_names).upper()}, got {len(paths)}")
    model = typing.get_type_hints(run)["params"]
    if not issubclass(model, Params):
        raise TypeError(f"focusdpo.{name}.run should take params: a subclass of Params")
    run(*map(Path, paths), params=params_of(settings(), name, model))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
