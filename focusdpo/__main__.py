"""The door of the branch: ``python -m focusdpo NAME PATH...`` runs a stage on the paths that dvc.yaml names.

Settings are those of the pipeline in ``../params.yaml``, changed and completed by the branch's own in ``params.yaml``.
Stages for SDXL have a graph of their own in ``sdxl/dvc.yaml`` and names that begin with ``sdxl-``; their settings are
those of the stages without it, as the section ``sdxl`` changes and completes them.
"""

from functools import partial
from pathlib import Path

from focusdpo import STAGES
from mcpipe.core.params import Params, params_of
from mcpipe.steps.door import Door, branch_settings, changed_by, leave_folder

SDXL = "sdxl-"
SDXL_STAGES = {
    "encode": "sdxl_encode", "train": "sdxl_train", "start": "sdxl_start", "draw": "sdxl_draw", "evaluate": "evaluate",
    "table": "table",
}  # fmt: skip
"""Modules by the names of SDXL's stages."""
SECTIONS = {"start": "draw"}
"""Sections of settings of stages that have another name: the start is drawn as the arms are."""
FOLDER = Path(__file__).resolve().parent
settings = partial(branch_settings, FOLDER.parent, FOLDER)


def params(name: str, model: type[Params]) -> Params:
    """The settings of a stage."""
    stage = name.removeprefix(SDXL)
    if stage == name:
        return params_of(settings(), name, model)
    changes = settings()["sdxl"]
    assert isinstance(changes, dict), "a section of params.yaml"
    return params_of(changed_by(settings(), changes), SECTIONS.get(stage, stage), model)


MODULES = {name: name for name in STAGES} | {f"{SDXL}{name}": module for name, module in SDXL_STAGES.items()}
DOOR = Door("focusdpo", MODULES, params)
run_stage = DOOR.run_stage

if __name__ == "__main__":
    leave_folder(FOLDER)
    DOOR.process()
