"""Nothing phones home and nothing unknown is unpickled: switches of third-party libraries.

They look at the environment when imported, so `stay_offline` comes first.
"""

import os
import tempfile
from pathlib import Path

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "DVC_NO_ANALYTICS": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",  # unpickles known classes only
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_WAIT_POLICY": "passive",
}


def stay_offline() -> None:
    """Set every switch that the environment leaves open; libraries keep their settings in a folder of ours."""
    settings = Path(tempfile.gettempdir()) / f"mcpipe-settings-{os.getuid()}"
    settings.mkdir(exist_ok=True)
    folders = {"YOLO_CONFIG_DIR": str(settings), "MPLCONFIGDIR": str(settings / "matplotlib")}
    for name, value in (OFFLINE | folders).items():
        os.environ.setdefault(name, value)
