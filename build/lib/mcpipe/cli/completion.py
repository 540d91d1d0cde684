"""Completion of the command line by a shell, written from the verbs themselves."""

import argparse
from collections.abc import Iterable, Iterator, Sequence

from mcpipe.cli.__main__ import Verb, parser

SCRIPT = """_mcpipe() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{verbs}"
  else
    case "${{COMP_WORDS[1]}} $previous $current" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _mcpipe mcpipe
"""
"""Where no word fits, the shell falls back on file names."""

ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
"""zsh reads completions that were written for bash."""


def command(options: argparse.Namespace) -> str:
    """The script for one shell, to be sourced."""
    verbs = verbs_by_name()
    cases = "\n".join(line for name, verb in verbs.items() for line in verb_cases(name, verb._actions))
    script = SCRIPT.format(verbs=" ".join(verbs), cases=cases)
    return (ZSH if options.shell == "zsh" else "") + script.rstrip()


def verbs_by_name() -> dict[str, Verb]:
    """Every verb with all its arguments."""
    verbs: dict[str, Verb] = {}
    for action in parser()._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, verb in action.choices.items():
            assert isinstance(verb, Verb), "as the parser makes them"
            verb.complete()
            verbs[name] = verb
    return verbs


def verb_cases(name: str, arguments: Sequence[argparse.Action]) -> Iterator[str]:
    """What one verb offers, the first case that fits: after an option what it takes, else options and fixed choices.

    A verb that takes paths offers its options once a dash is there, so that an empty word means files.
    """
    valued = [part for part in arguments if part.option_strings and part.nargs != 0]
    for part in valued:
        for option in part.option_strings:
            yield _case(f'"{name} {option} "*', part.choices or ())
    places = [part for part in arguments if not part.option_strings]
    words = [word for part in arguments for word in part.option_strings or part.choices or ()]
    yield _case(f'"{name} "*' if all(part.choices for part in places) else f'"{name} "*" -"*', words)


def _case(pattern: str, words: Iterable[str]) -> str:
    return f'      {pattern}) words="{" ".join(words)}" ;;'
