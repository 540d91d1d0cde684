"""The one door of the pipeline: ``python -m stages NAME IN... OUT...``; see `mcpipe.steps.door`."""

from functools import partial
from pathlib import Path

from mcpipe.core.params import read_params
from mcpipe.steps.door import Door
from stages import STAGES

SETTINGS = Path("params.yaml")
DOOR = Door("stages", STAGES, partial(read_params, SETTINGS))
main, run_stage = DOOR.main, DOOR.run_stage


if __name__ == "__main__":
    DOOR.process()
