"""The door of the branch: ``python -m psr NAME PATH...`` runs a stage on the paths that dvc.yaml names.

Settings are those of the pipeline in ``../params.yaml``, changed and completed by the branch's own in ``params.yaml``.
"""

from functools import partial
from pathlib import Path

from mcpipe.core.params import Params, params_of
from mcpipe.steps.door import Door, branch_settings, leave_folder
from psr import STAGES

FOLDER = Path(__file__).resolve().parent
settings = partial(branch_settings, FOLDER.parent, FOLDER)


def params(name: str, model: type[Params]) -> Params:
    """The settings of a stage."""
    return params_of(settings(), name, model)


DOOR = Door("psr", {name: name for name in STAGES}, params)
run_stage = DOOR.run_stage

if __name__ == "__main__":
    leave_folder(FOLDER)
    DOOR.process()
