"""The shape of the project: who may import whom, and how large a thing may grow."""

import ast
import sys

from imports import ROOT, imported_modules, module_file, project_modules, syntax_tree
from processes import output

from stages import STAGES

LAYERS = [
    {"core"},
    {"execution"},
    {"curate", "models", "objectives", "world"},
    {"flux"},
    {"sdxl"},
    {"train", "bench"},
    {"report", "pipelines"},
    {"steps"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
VENDORS = {
    "ultralytics", "sam2", "insightface", "onnxruntime", "transformers", "open_clip", "qwen_vl_utils", "av", "onnx",
}  # fmt: skip


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def test_modules_import_only_their_own_room_or_lower_layers():
    for module in filter(room_of, project_modules("mcpipe")):
        room = room_of(module)
        for name in imported_modules(module):
            other = room_of(name)
            if name.startswith("mcpipe.") and other != room:
                assert LEVEL[other] < LEVEL[room], f"{module} imports {name}"


def test_only_models_name_vendors_and_only_backbones_name_diffusers():
    for module in project_modules("mcpipe"):
        vendors = {name.split(".")[0] for name in imported_modules(module)}
        if room_of(module) not in ("models", "world"):
            assert not vendors & VENDORS, f"{module} names {vendors & VENDORS}"
        if room_of(module) not in ("flux", "sdxl", "pipelines"):
            assert "diffusers" not in vendors, f"{module} names diffusers"


def test_mcpipe_stands_alone_and_only_the_door_imports_stages():
    """A wheel holds ``mcpipe`` and nothing else."""
    for module in project_modules("mcpipe"):
        others = {name.split(".")[0] for name in imported_modules(module)} & {
            "stages",
            "zoo",
            "studies",
            "benchmarks",
            "focusdpo",
            "objects",
            "psr",
        }
        assert not others, f"{module} imports {others}"
    for module in project_modules("stages", "zoo", "studies", "benchmarks", "focusdpo", "objects", "psr"):
        if module != "stages.__main__":
            assert not any(name.split(".")[0] == "stages" for name in imported_modules(module)), module


def test_stages_are_stages():
    files = {file.name for file in (ROOT / "stages").glob("*.py")}
    assert files == {"__init__.py", "__main__.py", *(f"{module}.py" for module in STAGES.values())}


def test_train_and_bench_choose_no_adapters():
    for module in project_modules("mcpipe"):
        if room_of(module) in ("train", "bench"):
            models = {name for name in imported_modules(module) if name.startswith("mcpipe.models")}
            assert models <= {"mcpipe.models", "mcpipe.models.protocols"}, module


def test_no_pipeline_stage_knows_the_world():
    """Ground truth is for tests and for training the zoo."""
    allowed = {"stages.s00_world", "mcpipe.cli.world", "mcpipe.steps.settings"}
    for module in project_modules("mcpipe", "stages"):
        if room_of(module) != "world" and module not in allowed:
            assert not any(name.startswith("mcpipe.world") for name in imported_modules(module)), module


def test_modules_fit_on_a_desk():
    for module in project_modules("mcpipe", "stages", "zoo", "studies", "focusdpo", "objects", "psr"):
        file = module_file(module)
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, f"{file} has over 300 lines"
        for node in ast.walk(syntax_tree(file)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 50, f"{file}: {node.name} has {lines} lines"


def test_only_the_core_opens_records_by_strings():
    """Everybody else reads the fields of typed records, which are checked where they are read."""
    for module in project_modules("mcpipe", "stages", "studies", "focusdpo", "objects", "psr"):
        if room_of(module) != "core":
            for node in ast.walk(syntax_tree(module_file(module))):
                assert not opens_a_record(node), f"{module}:{node.lineno}: {ast.unparse(node)}"


def opens_a_record(node):
    """Whether an expression takes something out of a record by its name, or builds a record by hand."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Attribute) and node.value.attr in ("arrays", "meta")
    if not isinstance(node, ast.Call):
        return False
    called, strings = (
        node.func,
        any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in node.args),
    )
    if isinstance(called, ast.Name):
        return called.id == "Record"
    from_bag = isinstance(called, ast.Attribute) and ast.unparse(called.value).endswith((".arrays", ".meta"))
    return strings and isinstance(called, ast.Attribute) and (from_bag or called.attr in ("text", "texts"))


def test_what_opens_a_record_is_noticed():
    for line in (
        'a.arrays["x"]',
        "packed.record().arrays[name]",
        'a.meta["x"]',
        'a.meta.get("x")',
        'a.text("x")',
        "Record(k)",
    ):
        assert any(opens_a_record(node) for node in ast.walk(ast.parse(line))), line
    for line in ("a.arrays", "pen.text((0, 0), title)", "data.text(sample)", 'table["x"]'):
        assert not any(opens_a_record(node) for node in ast.walk(ast.parse(line))), line


def test_packages_hold_no_code():
    for module in project_modules("mcpipe"):
        file = module_file(module)
        if file.name == "__init__.py":
            body = syntax_tree(file).body
            if module == "mcpipe":  # which outputs do not depend on
                assert ast.unparse(body[1:]) == "from mcpipe.core.offline import send_no_reports\nsend_no_reports()"
                body = body[:1]
            assert len(body) == 1, module
            assert isinstance(body[0], ast.Expr), module


def test_importing_data_stages_loads_no_torch():
    code = "import sys\nfor stage in ('s01_frames', 's02_subjects', 's03_identity', 's04_captions', 's05_samples'):\n"
    code += "    __import__(f'stages.{stage}')\n    print(stage, 'torch' in sys.modules)"
    answers = output([sys.executable, "-c", code], cwd=ROOT).splitlines()
    assert [answer.split()[1] for answer in answers] == ["False"] * 5, answers
