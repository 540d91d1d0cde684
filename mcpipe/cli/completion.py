"""Completion of the command line by a shell: verbs, options, fixed choices, and paths.

In bash, shtab splits a path at its spaces. Readline, which comes in where nothing fits, does not: it completes files,
and one function completes folders.
"""

import argparse

import shtab

from mcpipe.cli.__main__ import parser

FOLDERS = r"""
_mcpipe_dirs() {
  local word
  IFS= read word <<< "$1"  # removes backslashes
  compgen -d -- "${word#[\'\"]}"
}
"""
PATHS = {
    "FILE": shtab.FILE | {"bash": ""},
    "DIR": shtab.DIRECTORY | {"bash": "_mcpipe_dirs", "preamble": {"bash": FOLDERS}},
}
"""Completion of an argument's value, by the argument's metavar."""
READLINE = "\ncomplete -o bashdefault -o default -F _shtab_mcpipe mcpipe"
"""Lets readline complete file names where bash finds nothing else."""


def command(options: argparse.Namespace) -> str:
    """The script for one shell, to be evaluated by it."""
    command_line = parser(complete=True)
    for verb in verbs(command_line):
        for action in verb._actions:
            if action.metavar in PATHS:
                action.complete = PATHS[action.metavar]  # pyright: ignore[reportAttributeAccessIssue]  shtab's own
    return shtab.complete(command_line, options.shell) + READLINE * (options.shell == "bash")


def verbs(command_line: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of all verbs."""
    groups = [action for action in command_line._actions if isinstance(action, argparse._SubParsersAction)]
    return [verb for group in groups for verb in group.choices.values()]
