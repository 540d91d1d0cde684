"""The door of the branch: ``python -m psr NAME PATH...`` runs a stage on the paths that dvc.yaml names.

Settings are those of the pipeline in ``../params.yaml``, changed and completed by the branch's own in ``params.yaml``.
"""

from pathlib import Path

from mcpipe.steps.door import branch_door, leave_folder
from psr import STAGES

FOLDER = Path(__file__).resolve().parent
DOOR = branch_door(FOLDER, STAGES)
run_stage = DOOR.run_stage

if __name__ == "__main__":
    leave_folder(FOLDER)
    DOOR.process()
