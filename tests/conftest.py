import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from mcpipe.core.offline import stay_offline

stay_offline()

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "real"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real clips, faces and checkpoints are not in {REAL}")
    return REAL


pytest_plugins = ["flux_fixtures", "training_fixtures"]
