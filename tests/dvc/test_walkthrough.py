"""The README's way with clips of one's own fits the project; `python -m benchmarks.walkthrough` executes it."""

import re

import yaml
from imports import ROOT

from benchmarks.walkthrough import CLIPS, FACES, readme_commands


def test_commands_of_the_readme_name_what_there_is():
    commands = readme_commands()
    assert {command.split()[0] for command in commands} <= {"dvc", "git", "sed"}
    fetched = [re.fullmatch(r"dvc import-url (\S+) (data/\w+)", command) for command in commands[:2]]
    assert [match[1] for match in fetched if match] == [CLIPS, FACES]
    replaced = dict(
        re.findall(r"s\|([^|]+)\|([^|]+)\|", next(command for command in commands if command.startswith("sed")))
    )
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    source = yaml.safe_load(settings)["source"]
    assert replaced == {source["clips"]: fetched[0][2], source["faces"]: fetched[1][2]}
    assert all(settings.count(place) == 1 for place in replaced), "nothing else is replaced"
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    targets = [command.split()[2:] for command in commands if command.startswith("dvc repro")]
    assert {target for some in targets for target in some} <= set(stages)
    assert targets[-1] == [], "the last command runs everything"
