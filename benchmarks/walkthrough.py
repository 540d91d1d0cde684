"""The README's commands for your own clips, executed: python -m benchmarks.walkthrough [--all].

Clones the current commit, has its trainings take two steps, renders clips and portraits outside of the clone, with
people of another seed, and runs the commands of the README's section one by one, as they are written there. The last
one, which runs everything that is left, is left out unless ``--all`` is given.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from mcpipe.cli.repository import check_repository

ROOT = Path(__file__).parent.parent
SECTION = "## Your own clips and weights"
CLIPS, FACES = "/path/to/clips", "/path/to/portraits"
"""What stands in the README where a reader has paths of their own."""
WORLD = {"seed": 77, "good_clips": 8, "bad_clips_per_kind": 1, "faces": 10}
"""Enough for every stage and every reason of refusal, small enough to wait for."""
LEAST_SAMPLES = 4
"""Minimum number of samples from the eight clips with two people who can be verified."""


def main(arguments: list[str] | None = None) -> int:
    """Run every command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="walkthrough", description="the README's commands for your own clips")
    parser.add_argument("--all", action="store_true", help="also what the last command does")
    options = parser.parse_args(arguments)
    try:
        check_repository(ROOT)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    commands = readme_commands()
    with TemporaryDirectory(prefix="walkthrough-") as place:
        folder = Path(place)
        project = folder / "mcpipe"
        call(f"git clone --quiet {ROOT} {project}", folder)
        call("git config user.name reader && git config user.email reader@example.org", project)
        shorten(project)
        clips, faces = render(folder / "raw")
        for command in commands if options.all else commands[:-1]:
            start = time.monotonic()
            print(f"$ {command}", flush=True)
            call(command.replace(CLIPS, str(clips)).replace(FACES, str(faces)), project)
            print(f"  {time.monotonic() - start:.0f} s", flush=True)
        print(account(project))
    return 0


def readme_commands() -> list[str]:
    """The commands of the section's first block, without comments.

    Raises:
        ValueError: the README has no such block.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"^{SECTION}$.*?^```sh$\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if block is None:
        raise ValueError(f"README.md has no commands under {SECTION!r}")
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in block[1].splitlines()]
    return [line for line in lines if line]


def shorten(project: Path) -> None:
    """Have the trainings of a clone take two steps each, by a commit of its own; comments stay."""
    file = project / "params.yaml"
    text, replacements = re.subn(
        r"(?m)^(train_(?:single|multi|rl):(?:\n(?!\S).*)*?\n  num_(?:steps|iterations):) \d+$",
        r"\1 2",
        file.read_text(encoding="utf-8"),
    )
    if replacements != 3:
        raise ValueError(f"{replacements} trainings with num_steps or num_iterations in params.yaml, not 3")
    file.write_text(text, encoding="utf-8")
    call("git commit --quiet --all --message 'Few steps'", project)


def render(folder: Path) -> tuple[Path, Path]:
    """Clips and portraits of people whom the project's own run does not show."""
    folder.mkdir()
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["world"] |= WORLD
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    call("python -m stages world clips faces truth", folder)
    return folder / "clips", folder / "faces"


def account(project: Path) -> str:
    """How many samples came of the clips.

    Raises:
        RuntimeError: too few.
    """
    report = yaml.safe_load((project / "data" / "samples" / "report.json").read_text(encoding="utf-8"))
    if report["kept"] < LEAST_SAMPLES:
        raise RuntimeError(f"{report['kept']} samples of {WORLD['good_clips']} good clips")
    return f"{report['kept']} samples of {WORLD['good_clips']} good clips"


def call(command: str, folder: Path) -> None:
    """Run a command with this interpreter's tools first.

    Raises:
        RuntimeError: it failed.
    """
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"DVC_NO_ANALYTICS": "true", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if (folder / "stages").is_dir():
        environment["PYTHONPATH"] = str(folder)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, check=False, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise RuntimeError(f"`{command}` failed with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
