"""The door of the zoo: ``python -m zoo.build NAME PATH...`` builds one part of it from paths that dvc.yaml names.

Settings are the section NAME of params.yaml in the current folder, that of ``zoo/build``.
"""

import importlib
import logging
import os
import sys
import typing
from pathlib import Path

from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import Params, read_params

SETTINGS = Path("params.yaml")
logger = logging.getLogger("zoo")


def main(arguments: list[str]) -> int:
    """Build the parts named by the arguments; returns the exit status."""
    stay_offline()
    # `python -m` puts the current folder first, where our own tokenizers.py would hide the library of that name.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        build_part(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        debug = "MCPIPE_DEBUG" in os.environ
        where = arguments[0] if arguments else ""
        logger.log(logging.ERROR, "error: %s", one_line(error, where), exc_info=debug)
        return 1
    return 0


def build_part(arguments: list[str]) -> None:
    """Read the settings of a part and call its ``build`` with the paths.

    Raises:
        ValueError: no such part, or a bad parameter.
    """
    parts = sorted(
        file.stem for file in Path(__file__).parent.glob("*.py") if "def build(" in file.read_text(encoding="utf-8")
    )
    if not arguments or arguments[0] not in parts:
        raise ValueError(f"usage: python -m zoo.build NAME PATH..., with NAME one of {', '.join(parts)}")
    name, *paths = arguments
    build = importlib.import_module(f"zoo.build.{name}").build
    model = typing.get_type_hints(build).get("params")
    if model is None:
        build(*map(Path, paths))
        return
    if not issubclass(model, Params):
        raise TypeError(f"zoo.build.{name}.build should take params: a subclass of Params")
    build(*map(Path, paths), params=read_params(SETTINGS, name, model))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
