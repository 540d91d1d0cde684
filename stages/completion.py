"""Completion of the command line by a shell, written from the verbs themselves."""

import argparse

from mcpipe.cli import Verb, parser

SCRIPT = """_mcpipe() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _mcpipe mcpipe
"""
"""Where no word fits, the shell falls back on file names."""

ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
"""zsh reads completions that were written for bash."""


def command(options: argparse.Namespace) -> str:
    """The script for one shell, to be sourced."""
    words = verb_words()
    cases = "\n".join(f'    {verb}) words="{" ".join(each)}" ;;' for verb, each in words.items())
    script = SCRIPT.format(verbs=" ".join(words), cases=cases)
    return (ZSH if options.shell == "zsh" else "") + script.rstrip()


def verb_words() -> dict[str, list[str]]:
    """Every verb with its options and fixed choices."""
    words: dict[str, list[str]] = {}
    for action in parser()._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, verb in action.choices.items():
            assert isinstance(verb, Verb), "as the parser makes them"
            verb.complete()
            words[name] = [word for part in verb._actions for word in (*part.option_strings, *(part.choices or ()))]
    return words
