"""The shape of the project: who may import whom, and how large a thing may grow."""

import ast
import subprocess
import sys

import pytest
from imports import ROOT, imported_modules, module_file, project_modules

LAYERS = [
    {"params", "offline", "threads"},
    {"records"},
    {"packing"},
    {"shards", "report", "progress", "store", "fingerprint"},
    {"workers"},
    {"ray_workers"},
    {"engine"},
    {"curate", "models", "objectives", "world"},
    {"flux"},
    {"train", "bench"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
VENDORS = {
    "ultralytics", "sam2", "insightface", "onnxruntime", "transformers", "open_clip", "qwen_vl_utils", "av", "onnx",
}  # fmt: skip


def room_of(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", [m for m in project_modules("mcpipe") if room_of(m)])
def test_module_imports_only_its_own_room_or_lower_layers(module):
    room = room_of(module)
    for name in imported_modules(module):
        other = room_of(name)
        if not name.startswith("mcpipe.") or other == room:
            continue
        assert LEVEL[other] < LEVEL[room], f"{module} imports {name}"


@pytest.mark.parametrize("module", project_modules("mcpipe"))
def test_only_models_name_vendors_and_only_flux_names_diffusers(module):
    vendors = {name.split(".")[0] for name in imported_modules(module)}
    if room_of(module) not in ("models", "world"):
        assert not vendors & VENDORS, f"{module} names {vendors & VENDORS}"
    if room_of(module) != "flux":
        assert "diffusers" not in vendors, f"{module} names diffusers"
    assert "stages" not in vendors, f"{module} imports the shell"


@pytest.mark.parametrize("module", [m for m in project_modules("mcpipe") if room_of(m) in ("train", "bench")])
def test_only_stages_choose_adapters(module):
    models = {name for name in imported_modules(module) if name.startswith("mcpipe.models")}
    assert models <= {"mcpipe.models", "mcpipe.models.protocols"}


@pytest.mark.parametrize("module", [m for m in project_modules("mcpipe", "stages") if m != "stages.s00_world"])
def test_no_pipeline_stage_knows_the_world(module):
    """Ground truth is for tests and for training the zoo."""
    if room_of(module) != "world":
        assert not any(name.startswith("mcpipe.world") for name in imported_modules(module))


@pytest.mark.parametrize("module", project_modules("mcpipe", "stages", "zoo"))
def test_module_fits_on_a_desk(module):
    file = module_file(module)
    assert len(file.read_text().splitlines()) <= 300, f"{file} has over 300 lines"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 50, f"{file}: {node.name} has {lines} lines"


@pytest.mark.parametrize("module", project_modules("mcpipe"))
def test_packages_hold_no_code(module):
    """DVC's code dependencies leave out ``__init__.py``."""
    file = module_file(module)
    if file.name == "__init__.py":
        body = ast.parse(file.read_text()).body
        assert len(body) == 1
        assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("stage", ["s01_frames", "s02_subjects", "s03_identity", "s04_captions", "s05_samples"])
def test_importing_a_data_stage_loads_no_torch(stage):
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
