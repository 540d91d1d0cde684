"""The door of the branch: ``python -m focusdpo NAME PATH...`` runs a stage on the paths that dvc.yaml names.

Settings are those of the pipeline in ``../params.yaml``, changed and completed by the branch's own in ``params.yaml``.
SDXL has no part in the graph, since the zoo holds none: ``sdxl-encode`` and ``sdxl-train`` are run by hand, with the
settings of ``encode`` and ``train`` as the section ``sdxl`` changes them.
"""

from functools import partial
from pathlib import Path

from focusdpo import STAGES
from mcpipe.core.params import Params, params_of
from mcpipe.steps.door import Door, branch_settings, changed_by, leave_folder

SDXL, BY_HAND = "sdxl-", ("encode", "train")
FOLDER = Path(__file__).resolve().parent
settings = partial(branch_settings, FOLDER.parent, FOLDER)


def params(name: str, model: type[Params]) -> Params:
    """The settings of a stage."""
    stage = name.removeprefix(SDXL)
    if stage == name:
        return params_of(settings(), name, model)
    changes = settings()["sdxl"]
    assert isinstance(changes, dict), "a section of params.yaml"
    return params_of(changed_by(settings(), changes), stage, model)


DOOR = Door("focusdpo", {name: name for name in STAGES} | {f"{SDXL}{each}": f"sdxl_{each}" for each in BY_HAND}, params)
run_stage = DOOR.run_stage

if __name__ == "__main__":
    leave_folder(FOLDER)
    DOOR.process()
