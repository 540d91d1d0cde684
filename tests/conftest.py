import os

os.environ.setdefault("MCPIPE_WORKERS", "1")  # the machine already runs two tests at a time
os.environ["OMP_NUM_THREADS"] = "1"  # sums come out the same, and forked processes do not wait for threads they lack

from pathlib import Path

import pytest

from mcpipe.core.offline import stay_offline

stay_offline()

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "real"
LONGEST_FIRST = (
    "train/rl/test_rl.py", "studies/test_runner.py", "train/test_distributed.py", "cli/test_wheel.py",
    "stages/test_contract.py", "execution/test_resume.py", "core/test_offline.py", "dvc/test_sweeps.py",
    "curate/test_curation_on_world.py", "flux/test_attention.py", "flux/test_lora_files.py", "train/test_training.py",
    "train/test_loop.py", "models/test_fuzz.py", "world/test_world_clips.py", "zoo/test_zoo_scorers.py",
    "execution/test_curation_interrupted.py", "world/test_world_close.py", "report/test_report_page.py",
    "train/rl/test_rl_ranks.py", "steps/test_steps_generate.py", "train/test_shapes.py", "zoo/test_zoo_build.py",
)  # fmt: skip
"""Files that take many seconds, the longest at the top: whoever runs two at a time ends with short ones."""


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real clips, faces and checkpoints are not in {REAL}")
    return REAL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> object:
    """Take back what a test and its fixtures leave in the environment, as verbs do that choose an engine."""
    before = os.environ.copy()
    answer = yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    return answer


pytest_plugins = ["flux_fixtures", "stage_fixtures"]
