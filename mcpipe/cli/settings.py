"""Settings of verbs outside the pipeline: params.yaml, overlaid by a configuration and by single changes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import yaml

from mcpipe.core.params import parse_yaml
from mcpipe.core.records import JSON

SETTINGS = "params.yaml"
CONFIGURATIONS = (Path("conf") / "scale", Path("conf") / "recipe")
"""Folders of configurations relative to params.yaml, with one file of changes each. Hydra composes them for DVC."""
DEFAULTS = "defaults"
"""Folder of an installed package with copies of params.yaml and conf/; see setup.py."""

PATHS = (
    "models",
    "source",
    "train_single.start",
    "psrbench.grounder",
    "psrbench.preference",
    "evaluate.pick_score",
    "rl_psr.grounder",
    "rl_psr.encoder",
    "rl_psr.judge",
    "rl_psr.preference",
)
"""Settings that are paths: whole sections and single keys."""

Content = dict[str, JSON]


def settings_file() -> Path:
    """The params.yaml of the current folder; otherwise that of the checkout or the installed package's copy."""
    package = Path(__file__).resolve().parent.parent
    candidates = (Path(SETTINGS), package.parent / SETTINGS, package / DEFAULTS / SETTINGS)
    return next((file for file in candidates if file.is_file()), candidates[-1])


def read_content(file: Path, configuration: str | None, changes: Sequence[str]) -> Content:
    """The content of a settings file, overlaid by a configuration and by changes ``section.key=value``.

    Several configurations are joined by ``+``, such as ``paper+psr``, and overlay each other in this order.
    A relative path in a file stays relative to the folder of the settings file (see `located`). A relative path in a
    change is relative to the current folder and becomes absolute.

    Raises:
        FileNotFoundError: the file or the configuration does not exist.
        ValueError: a file is not a YAML mapping, or a configuration or change names an unknown setting.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no settings file {file}; run from the root of the project")
    content = _mapping(file)
    for name in configuration.split("+") if configuration is not None else ():
        overlay = _configuration(file.parent, name)
        content = overlaid(content, _mapping(overlay), str(overlay))
    for change in changes:
        content = overlaid(content, _nested(change), f"-S {change}")
    return content


def _configuration(root: Path, name: str) -> Path:
    """The file of a configuration in the first folder that has it."""
    places = [root / folder / f"{name}.yaml" for folder in CONFIGURATIONS]
    for place in places:
        if place.is_file():
            return place
    known = ", ".join(sorted(path.stem for place in places for path in place.parent.glob("*.yaml"))) or "none"
    raise FileNotFoundError(f"no configuration {places[0]}; there are: {known}")


def overlaid(content: Content, changes: Content, source: str, place: str = "") -> Content:
    """A mapping with some values changed at any depth; values that are mappings on both sides are merged.

    Raises:
        ValueError: a change names an unknown setting, which Hydra refuses, too.
    """
    changed = dict(content)
    for key, value in changes.items():
        name = f"{place}{key}"
        if key not in content:
            raise ValueError(f"{source}: there is no setting {name}")
        before = content[key]
        if isinstance(before, dict) and isinstance(value, dict):
            changed[key] = overlaid(before, value, source, f"{name}.")
        else:
            changed[key] = value
    return changed


def section(content: Content, name: str) -> Content:
    """One section of the settings.

    Raises:
        ValueError: the settings have no section of that name.
    """
    values = content.get(name)
    if not isinstance(values, dict):
        raise ValueError(f"{SETTINGS} has no section {name!r}")  # noqa: TRY004  not a type that a caller passed
    return values


def located(content: Content, folder: Path) -> dict[str, Path]:
    """Paths of the checkpoints; relative paths start from the folder of the settings.

    Raises:
        ValueError: a setting of ``models`` is not a path.
    """
    places: dict[str, Path] = {}
    for name, path in section(content, "models").items():
        if not isinstance(path, str) or not path:
            raise ValueError(f"models.{name} should be a path (got {path!r})")
        places[name] = folder / path
    return places


def name_in(folder: Path, path: JSON) -> str:
    """A path as a settings file in that folder names it: relative if it lies inside, otherwise unchanged."""
    place, root = Path(os.path.normpath(str(path))), folder.absolute()
    return str(place.relative_to(root) if place.is_relative_to(root) else place)


def _mapping(file: Path) -> Content:
    try:
        content = cast(JSON, parse_yaml(file.read_text(encoding="utf-8"))) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} should be a mapping of sections")  # noqa: TRY004  not a type that a caller passed
    return content


def _nested(change: str) -> Content:
    name, sign, text = change.partition("=")
    if not sign or not name:
        raise ValueError(f"-S {change}: should be SECTION.KEY=VALUE, a setting of {SETTINGS}")
    try:
        value: JSON = cast(JSON, parse_yaml(text))
    except yaml.YAMLError as error:
        raise ValueError(f"-S {change}: {' '.join(str(error).split())}") from error
    value = _typed(name, value, text.strip())
    for key in reversed(name.split(".")):
        value = {key: value}
    assert isinstance(value, dict), "a name has at least one part"
    return value


def _typed(name: str, value: JSON, text: str) -> JSON:
    """The value of a change; a path becomes absolute, even if it reads as a number, such as ``2024``."""
    if isinstance(value, dict):
        return {key: _typed(f"{name}.{key}", inner, str(inner)) for key, inner in value.items()}
    is_path = name in PATHS or ("." in name and name.partition(".")[0] in PATHS)
    if not is_path or value is None or isinstance(value, list):
        return value
    return str(Path(value if isinstance(value, str) else text).absolute())
