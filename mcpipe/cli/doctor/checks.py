"""Checks before a run that all inputs exist and fit, for ``mcpipe doctor``.

The checks load no checkpoint: they read headers, and build the network without weights.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from mcpipe.cli.doctor.checkpoints import digest, inspect_model
from mcpipe.cli.doctor.findings import Finding, Verdict
from mcpipe.cli.doctor.memory import Hardware, capacity
from mcpipe.cli.doctor.texts import text_rows
from mcpipe.cli.repository import check_repository
from mcpipe.cli.settings import Content, located, name_in, read_content, section, settings_file
from mcpipe.core.params import params_of
from mcpipe.steps.settings import SECTIONS

COLOURS: dict[Verdict, str] = {"ok": "green", "note": "yellow", "problem": "red"}
OPTIONAL = (
    "evaluate.pick_score", "psrbench.grounder", "psrbench.preference", "rl_psr.grounder", "rl_psr.encoder",
    "rl_psr.judge", "rl_psr.preference",
)  # fmt: skip
"""Settings that name a checkpoint outside of ``models``, if they are not null."""
EMBEDDED = "data/world/"
"""Prefix of folders that the stage `world` renders, which do not exist before the first run."""
PACKAGES = (
    "accelerate", "av", "diffusers", "dvc", "insightface", "numpy", "onnxruntime", "open-clip-torch",
    "opencv-python-headless", "peft", "pyarrow", "safetensors", "sam2", "torch", "torchvision", "transformers",
    "ultralytics",
)  # fmt: skip


def command(options: argparse.Namespace) -> str:
    """Print the results of all checks; returns a closing line.

    Raises:
        FileNotFoundError: the settings or the configuration do not exist.
        ValueError: there is a problem; the message says how many and the first.
    """
    file = settings_file()
    content = read_content(file, options.conf, options.changes)
    hardware = Hardware(options.gpus, options.gpu_gb, options.data)
    rows = [*settings_rows(content), *source_rows(content, file.parent), *model_rows(content, file.parent)]
    rows += text_rows(located(content, file.parent)["generator"], options.data)
    rows += [*package_rows(file.parent / "requirements.lock"), *repository_rows(file.parent)]
    problems = [row for row in rows if row.verdict == "problem"]
    tables = [table(rows, options.conf or file.name)]
    if not any(row.about.startswith("settings") for row in problems):
        capacity_tables, more = fitting(content, file.parent, hardware)
        tables += capacity_tables
        problems += more
    for capacity_tables in tables:
        Console(soft_wrap=True, highlight=False).print(capacity_tables)
    if problems:
        first = f"{problems[0].about}: {problems[0].message}"
        raise ValueError(f"{len(problems)} problem{'s' * (len(problems) > 1)}, first {first}")
    return "everything is there and fits"


def fitting(content: Content, root: Path, hardware: Hardware) -> tuple[list[Table], list[Finding]]:
    """Tables of memory and disk space, and the problems; no tables if they cannot be computed."""
    try:
        needs = capacity(content, located(content, root) | optional_places(content, root), hardware)
    except (ValueError, OSError) as error:
        return [], [Finding("capacity", "problem", " ".join(str(error).split()))]
    problems = [Finding("capacity", "problem", fault) for fault in needs.problems]
    rows = problems or [Finding("capacity", "ok", "stages 2 and 3, reward models included, and what they write")]
    return [*needs.tables, table(rows, "what fits")], problems


def settings_rows(content: Content) -> Iterator[Finding]:
    """Check the settings of every stage."""
    faults = []
    for name, model in SECTIONS.items():
        try:
            params_of(content, name, model)
        except ValueError as error:
            faults.append(str(error))
    yield from (Finding("settings", "problem", fault) for fault in faults)
    if not faults:
        yield Finding("settings", "ok", f"accepted by all {len(SECTIONS)} stages")


def source_rows(content: Content, root: Path) -> Iterator[Finding]:
    """Check that the folders of clips and faces exist."""
    for name, path in section(content, "source").items():
        folder = root / str(path)
        if folder.is_dir() and any(folder.iterdir()):
            yield Finding(
                f"source.{name}", "ok", f"{path}: {sum(1 for file in folder.rglob('*') if file.is_file())} files"
            )
        elif name_in(root, path).startswith(EMBEDDED):
            yield Finding(f"source.{name}", "note", f"{path}: not there yet; the stage world renders it")
        else:
            yield Finding(f"source.{name}", "problem", f"no folder {folder}, or it is empty; set source.{name}")


def model_rows(content: Content, root: Path) -> Iterator[Finding]:
    """Check that every checkpoint exists, is complete, has the right kind, and equals the one of the last run."""
    recorded = recorded_digests(root / "dvc.lock")
    places = {f"models.{name}": path for name, path in located(content, root).items()}
    places |= optional_places(content, root)
    for about, path in places.items():
        try:
            summary = inspect_model(about.partition(".")[2], path)
        except (ValueError, OSError) as error:
            yield Finding(about, "problem", " ".join(str(error).split()))
            continue
        before = recorded.get(name_in(root, str(path)))
        if before is None:
            yield Finding(about, "ok", f"{summary}; hash unknown")
        elif digest(path) == before:
            yield Finding(about, "ok", f"{summary}; hash as in dvc.lock")
        else:
            yield Finding(about, "note", f"{summary}; not the one of dvc.lock, so what needs it runs again")


def optional_places(content: Content, root: Path) -> dict[str, Path]:
    """Checkpoints of `OPTIONAL` that the settings name, by setting."""
    places = {}
    for about in OPTIONAL:
        stage, _, name = about.partition(".")
        path = section(content, stage).get(name) if stage in content else None
        if path:
            places[about] = root / str(path)
    return places


def recorded_digests(lock: Path) -> dict[str, str]:
    """The hashes of all dependencies of the last run as recorded by DVC, by path; empty without a run."""
    if not lock.is_file():
        return {}
    stages = yaml.load(lock.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]  # noqa: S506  both are safe
    return {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage.get("deps", ()) if "md5" in dep}


def package_rows(lock: Path, installed: Callable[[str], str] = version) -> Iterator[Finding]:
    """Check that the packages that determine results have the versions of the lock file."""
    pins = locked(lock)
    others, missing = [], []
    for name in PACKAGES:
        try:
            installed_version = installed(name).split("+")[0]
        except PackageNotFoundError:
            missing.append(name)
            continue
        if installed_version not in pins.get(name, {installed_version}):
            others.append(f"{name} {installed_version} instead of {' or '.join(sorted(pins[name]))}")
    if missing:
        yield Finding("packages", "problem", f"not installed: {', '.join(missing)}; run `make setup`")
    if others:
        yield Finding("packages", "note", f"other versions than in {lock.name}: {', '.join(others)}")
    if not missing and not others:
        yield Finding("packages", "ok", f"{len(PACKAGES)} as in {lock.name}" if pins else f"{len(PACKAGES)} installed")


def repository_rows(root: Path) -> Iterator[Finding]:
    """Check that the pipeline lies in a git repository, which DVC needs."""
    if not (root / "dvc.yaml").is_file():
        return
    try:
        check_repository(root)
    except FileNotFoundError as error:
        yield Finding("repository", "problem", str(error))
    else:
        yield Finding("repository", "ok", "git, which DVC needs")


def locked(lock: Path) -> dict[str, set[str]]:
    """The versions in a lock file by package; empty without a file."""
    pins: dict[str, set[str]] = {}
    if lock.is_file():
        for name, pin in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
            pins.setdefault(name.lower().replace("_", "-"), set()).add(pin)
    return pins


def table(rows: list[Finding], title: str) -> Table:
    """The results of checks as a table for a terminal."""
    grid = Table("", "", "", title=title, show_header=False, title_justify="left")
    for row in rows:
        grid.add_row(row.about, f"[{COLOURS[row.verdict]}]{row.verdict}[/]", row.message.replace("[", r"\["))
    return grid
