"""Nothing phones home: models are loaded in a fresh HOME while the kernel says which addresses are asked for."""

import ast
import os
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
from imports import ROOT, module_file, project_modules, syntax_tree
from processes import completed

from mcpipe.core import offline

STRACE = shutil.which("strace")
SYSCALLS = "connect,sendto,sendmsg,sendmmsg"
INTERNET = re.compile(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
RESOLVER = re.compile(r'sa_family=AF_UNIX, sun_path="([^"]*resolve[^"]*)"')
THIS_MACHINE = re.compile(r"^(::ffff:)?127\.|^::1$")
DNS = "53"

MODELS_AND_WORKERS = """
from dataclasses import dataclass
from pathlib import Path

from mcpipe.execution.workers import pooled
from mcpipe.models.faces import InsightFaces

PACK = Path("zoo/faces/models/puppet")


@dataclass(frozen=True)
class Faces:
    def load(self):
        return InsightFaces(PACK, 0.5, 256).faces


def as_a_library():
    import mcpipe.pipelines

    InsightFaces(PACK, 0.5, 256)
    with pooled(Faces(), 1, 60.0):
        pass


def load_everything():
    import numpy as np
    import yaml

    from mcpipe.flux.backbone import load_generator
    from mcpipe.models.captioner import Qwen2_5VL
    from mcpipe.models.pose import UltralyticsPose
    from mcpipe.models.scorers.clip import Clip
    from mcpipe.models.scorers.dino import Dino
    from mcpipe.models.scorers.hps import HpsV2_1
    from mcpipe.models.segmenter import Sam2

    models = {name: Path(path) for name, path in yaml.safe_load(open("params.yaml"))["models"].items()}
    picture = np.zeros((64, 64, 3), np.uint8)
    InsightFaces(models["faces"], 0.5, 256).faces(picture)
    UltralyticsPose(models["pose"], 0.5).people(picture)
    Sam2(models["segmenter"]).masks(picture, np.array([[4, 4, 40, 40]], np.float32))
    Qwen2_5VL(models["captioner"]).answer([picture], "Describe.", temperature=0.0, seed=0, max_tokens=4)
    Clip(models["clip"]).texts(["a person"])
    Dino(models["dino"]).pictures([picture])
    HpsV2_1(models["hps"]).scores([picture], ["a person"])
    load_generator(models["generator"])


if __name__ == "__main__":
    from mcpipe.core.offline import stay_offline

    as_a_library()
    stay_offline()
    load_everything()
    print("all loaded")
"""

ON_RAY = """
from pathlib import Path

from cheap_work import Cheap, CheapParams, Number
from mcpipe.execution.ray_workers import on_ray
from mcpipe.execution.workers import Job

folder = Path("WORK")
(folder / "model").write_text("weights")
work = Cheap(CheapParams(factor=3, records_per_shard=7), folder / "model", str(folder / "log"))
with on_ray(work, 1, 60.0) as run:
    print(list(run([Job(Number("a", 1), folder / "verdict")])))
import time
time.sleep(5)
print("all loaded")
"""


@dataclass
class Watched:
    """What a process did outside of its own memory."""

    output: str
    left_at_home: list[str]
    addresses: set[str] | None
    """Addresses that it wanted to reach; ``None`` where there is no strace."""


def watch(tmp_path, *command, path=""):
    """Run a command with nothing in its environment, in a fresh HOME, under strace if there is one."""
    home, log = tmp_path / "home", tmp_path / "strace.log"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    traced = [STRACE, "--seccomp-bpf", "-f", "-e", f"trace={SYSCALLS}", "-o", str(log)] if STRACE else []
    done = completed([*traced, *command], cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    left = sorted(str(file.relative_to(home)) for file in home.rglob("*"))
    return Watched(done.stdout, left, addresses(log.read_text(encoding="utf-8")) if STRACE else None)


def addresses(log):
    """Addresses outside of this machine in strace's log, and every resolver of names, wherever it listens."""
    internet = {f"{address}:{port}" for port, address in INTERNET.findall(log)
                if port == DNS or not THIS_MACHINE.match(address)}  # fmt: skip
    return internet | set(RESOLVER.findall(log))


def expect_silence(watched):
    assert watched.left_at_home == []
    if watched.addresses is None:
        pytest.skip("HOME stayed empty; which addresses were asked for cannot be seen, since strace is not installed")
    assert watched.addresses == set()


def test_no_model_and_no_worker_looks_outside_or_leaves_anything_at_home(tmp_path):
    """Python users and their workers without any call, then every model as the verbs and stages load it."""
    (tmp_path / "script.py").write_text(MODELS_AND_WORKERS, encoding="utf-8")
    watched = watch(tmp_path, sys.executable, "-W", "ignore", str(tmp_path / "script.py"), path=str(ROOT))
    assert watched.output.strip().endswith("all loaded")
    expect_silence(watched)


def test_dvc_reports_nothing_in_this_repository(tmp_path):
    watched = watch(tmp_path, sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only")
    assert "evaluate" in watched.output
    expect_silence(watched)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed, see docs/cluster.md")
def test_ray_asks_nobody_in_which_cloud_it_runs(tmp_path):
    """It does connect a datagram socket to find its own address, over which it sends nothing."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    watched = watch(tmp_path, sys.executable, "-c", ON_RAY.replace("WORK", str(tmp_path)), path=path)
    assert watched.output.strip().endswith("all loaded")
    assert watched.left_at_home == []
    if watched.addresses is None:
        pytest.skip("strace is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.connect(("192.0.2.1", 9))
        address = own.getsockname()[0]
    others = {place for place in watched.addresses if not place.removeprefix("::ffff:").startswith(f"{address}:")}
    assert others <= {"8.8.8.8:53"}


def test_a_look_up_and_a_connection_would_be_seen(tmp_path):
    if STRACE is None:
        pytest.skip("strace is not installed")
    code = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect_ex(('192.0.2.9', 9))"
    assert "192.0.2.9:9" in watch(tmp_path, sys.executable, "-c", code).addresses
    assert addresses('connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16)')
    assert addresses('connect(3, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42)')
    assert addresses('sendto(3, "", 0, 0, {sa_family=AF_INET6, sin6_port=htons(80), inet_pton(AF_INET6, "fd00::1"')
    assert not addresses('connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16)')


REPORTERS = {"insightface", "onnxruntime", "ray", "ultralytics"}
"""They report as soon as they are imported, or set up to."""


PROJECT = ("mcpipe", "stages", "zoo", "studies", "benchmarks")


def first_import(name, seen):
    """The modules of `mcpipe` and of the reporters that importing a module alone imports first, at the top of files."""
    parts = name.split(".")
    for package in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
        if package == "mcpipe" or parts[0] in REPORTERS:
            return package
        if package not in seen and parts[0] in PROJECT and (file := module_file(package)):
            seen.add(package)
            for other in imported_in_order(file):
                if first := first_import(other, seen):
                    return first
    return None


def imported_in_order(file):
    for node in syntax_tree(file).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{file} uses a relative import"
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_whatever_is_imported_first_the_switches_are_set_before_what_reports():
    modules = project_modules(*PROJECT)
    firsts = {module: first_import(module, set()) for module in modules}
    assert {module: first for module, first in firsts.items() if first not in (None, "mcpipe")} == {}
    assert firsts["zoo.build.data"] == "mcpipe", "which imports insightface at its top"


def test_decisions_of_the_environment_stay_and_empty_ones_are_none(monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    offline.send_no_reports()
    assert (os.environ["DO_NOT_TRACK"], os.environ["ORT_DISABLE_TELEMETRY"]) == ("0", "1")


def test_it_is_said_when_onnxruntime_was_there_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    with pytest.warns(UserWarning, match="onnxruntime was imported before mcpipe"):
        offline.send_no_reports()
