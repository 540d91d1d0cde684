"""Switches of third-party libraries: no reports to their makers, no downloads, no unpickling of unknown classes.

Libraries read the environment when they are imported. Importing `mcpipe` therefore calls `send_no_reports` at once, and
every entry point calls `stay_offline` before it imports a model. What each library would send, and how that was
verified, is listed in docs/offline.md.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

NO_REPORTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime starts its uploader in native code while it is imported
    "YOLO_OFFLINE": "true",  # the only switch of ultralytics, which also stops its downloads
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
"""Switches that stop reports and update checks; they may be set in a process that is not ours alone."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "YOLO_AUTOINSTALL": "false",
    "DVC_STUDIO_OFFLINE": "true",  # no live figures to DVC Studio, even where a token is configured
    "TOKENIZERS_PARALLELISM": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",  # unpickles known classes only
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_WAIT_POLICY": "passive",
}
"""Switches for processes that are ours alone: they stop downloads and uploads that another program may want."""


def send_no_reports() -> None:
    """Set the switches of `NO_REPORTS` that the environment leaves open.

    Warns if onnxruntime has been imported already, which nothing can silence any more.
    """
    if "onnxruntime" in sys.modules and not os.environ.get("ORT_DISABLE_TELEMETRY"):
        warnings.warn(
            "onnxruntime was imported before mcpipe and reports to its maker; "
            "import mcpipe first, or set ORT_DISABLE_TELEMETRY=1",
            stacklevel=3,
        )
    _set_open(NO_REPORTS)


def stay_offline() -> None:
    """Set every switch that the environment leaves open; libraries keep their settings in a folder of ours."""
    settings = Path(tempfile.gettempdir()) / f"mcpipe-settings-{os.getuid()}"
    settings.mkdir(exist_ok=True)
    send_no_reports()
    _set_open(OFFLINE)
    _set_open({"YOLO_CONFIG_DIR": str(settings), "MPLCONFIGDIR": str(settings / "matplotlib")})


def _set_open(switches: Mapping[str, str]) -> None:
    """Set variables that are unset or empty; other values are the user's decision and stay."""
    for name, value in switches.items():
        if not os.environ.get(name):
            os.environ[name] = value
