"""The command ``mcpipe``: what people want outside of ``dvc repro``."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mcpipe.core.errors import one_line

FAULTS = (ValueError, OSError)
"""Errors that the user can fix, printed in one line; other errors are bugs and keep their traceback."""
PROBLEM, INTERRUPTED = 1, 130
"""Exit statuses besides 0; argparse itself leaves with 2 when the command line is wrong."""

CHANGE = "SECTION.KEY=VALUE"
OWN_SUITE = "mcpipe"
"""The same as `mcpipe.bench.tables.PEOPLE`, which cannot be imported without numerical libraries."""

Fill = Callable[[argparse.ArgumentParser], None]
"""Adds a verb's arguments."""
Run = Callable[[argparse.Namespace], object]
"""Runs a verb and returns the output to print; it imports the module of the verb lazily."""


class Verb(argparse.ArgumentParser):
    """A verb whose arguments are added when it is used."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def complete(self) -> None:
        """Add the verb's arguments, unless they are added already."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  one of argparse's signatures
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments like argparse, after adding the verb's own."""
        self.complete()
        return super().parse_known_args(args, namespace or argparse.Namespace())


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold bytes that no encoding knows
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parser().parse_args(arguments)
        check_text(options)
        _prepare()
        say(options.run(options))
    except FAULTS as error:
        say(f"error: {one_line(error)}", stderr=True)
        return PROBLEM
    except KeyboardInterrupt:
        say("interrupted", stderr=True)
        return INTERRUPTED
    return 0


def check_text(options: argparse.Namespace) -> None:
    """Check that arguments that are text, not paths, are valid text.

    Raises:
        ValueError: an argument holds bytes that are not UTF-8, which Python passes on as lone surrogates.
    """
    for name, value in vars(options).items():
        for text in value if isinstance(value, list) else [value]:
            printable = text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text
            if printable != text:
                option = "-S" if name == "changes" else f"--{name}"
                raise ValueError(
                    f"{option} {printable} is not UTF-8; write it in UTF-8, or rename the file if it names one"
                )


def _prepare() -> None:
    """Set the environment variables that libraries read when the verbs import them."""
    from mcpipe.core.offline import stay_offline
    from mcpipe.core.threads import one_thread

    stay_offline()
    one_thread()


def say(said: object, *, stderr: bool = False) -> None:
    """Print a text or one of rich's tables; faults are red on a terminal."""
    # A lazy import keeps the list of verbs quick.
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=True, highlight=False)
    try:
        console.print(said, markup=False, emoji=False, style="red" if stderr else None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python reports a broken pipe at exit


def parser(*, complete: bool = False) -> argparse.ArgumentParser:
    """The command line: every verb with one line of help; ``complete`` adds the arguments of all verbs."""
    command = argparse.ArgumentParser(prog="mcpipe", description=__doc__)
    verbs = command.add_subparsers(required=True, metavar="VERB", parser_class=Verb)
    for name, text, fill, run in VERBS:
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.fill = fill
        verb.set_defaults(run=run)
        if complete:
            verb.complete()
    return command


def run_curate(options: argparse.Namespace) -> object:
    """Run ``mcpipe curate``."""
    from mcpipe.cli.curate import command

    return command(options)


def run_generate(options: argparse.Namespace) -> object:
    """Run ``mcpipe generate``."""
    from mcpipe.cli.generate import command

    return command(options)


def run_score(options: argparse.Namespace) -> object:
    """Run ``mcpipe score``."""
    from mcpipe.cli.score import command

    return command(options)


def run_doctor(options: argparse.Namespace) -> object:
    """Run ``mcpipe doctor``."""
    from mcpipe.cli.doctor.checks import command

    return command(options)


def run_world(options: argparse.Namespace) -> object:
    """Run ``mcpipe world``."""
    from mcpipe.cli.world import command

    return command(options)


def run_demo(options: argparse.Namespace) -> object:
    """Run ``mcpipe demo``."""
    from mcpipe.cli.demo.server import command

    return command(options)


def run_table(options: argparse.Namespace) -> object:
    """Run ``mcpipe table``."""
    from mcpipe.cli.table import command

    return command(options)


def run_picture(options: argparse.Namespace) -> object:
    """Run ``mcpipe picture``."""
    from mcpipe.cli.picture import command

    return command(options)


def run_completion(options: argparse.Namespace) -> object:
    """Run ``mcpipe completion``."""
    from mcpipe.cli.completion import command

    return command(options)


def curation_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``curate``: a folder of clips, a folder of outputs, changes of settings."""
    verb.add_argument("clips", type=Path, metavar="DIR", help="folder of clips, searched recursively")
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for samples, funnel.json and progress"
    )
    _changes(verb)


def generation_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``: references, a prompt, a seed, the output, the adapter."""
    verb.add_argument(
        "--reference", dest="references", action="append", type=Path, required=True, metavar="FILE[:PHRASE]",
        help="picture of one person's face, or of an object and what it is, as in bag.png:'a leather bag'; once each",
    )  # fmt: skip
    verb.add_argument("--prompt", required=True, metavar="TEXT", help="what the picture shows, everybody included")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another picture (default: 0)")
    verb.add_argument("--size", metavar="WxH", help="width and height in pixels (default: the adapter's square)")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write, such as a PNG")
    verb.add_argument(
        "--attention", type=Path, metavar="DIR", help="folder for pictures of where each reference looked"
    )
    verb.add_argument(
        "--adapter", type=Path, default=Path("data/models/train_rl"), metavar="DIR",
        help="folder of a trained adapter (default: data/models/train_rl)",
    )  # fmt: skip
    verb.add_argument(
        "--memory", choices=("low", "medium", "high"), default="high",
        help="memory of the GPU to use: less is slower, and medium rounds frozen weights to 8 bits (default: high)",
    )  # fmt: skip
    verb.add_argument("--quantize", choices=("none", "fp8", "nf4"), help="form of frozen weights (by --memory)")
    _changes(verb)


def scoring_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``score``: a suite, a folder of images, a name for the table."""
    # A lazy import keeps the list of verbs quick.
    from mcpipe.bench.psr.columns import SUITE as PSRBENCH
    from mcpipe.bench.suites import PUBLIC

    verb.add_argument(
        "--suite", choices=(OWN_SUITE, *PUBLIC, PSRBENCH), required=True, help="whose prompts the pictures answer"
    )
    verb.add_argument("--images", type=Path, metavar="DIR", help="pictures KEY.png or KEY_0.png, ...")
    verb.add_argument("--name", help="of the system in the table")
    verb.add_argument("--handout", type=Path, metavar="DIR", help="write mcpipe's prompts and faces there instead")
    verb.add_argument("--out", type=Path, default=Path("data/results"), metavar="DIR", help="folder of all results")
    verb.add_argument("--pairs", type=Path, default=Path("data/pairs"), metavar="DIR", help="the prompts of mcpipe")
    verb.add_argument(
        "--prompts", type=Path, metavar="FILE", help="prompt file of a public suite, or folder of PSRBench"
    )
    verb.add_argument("--references", type=Path, metavar="DIR", help="the reference pictures of a public suite")
    verb.add_argument("--conf", metavar="NAME", help="configuration over params.yaml, such as paper or paper+psr")
    _changes(verb)


def doctor_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor``: a configuration and the machine that it should fit."""
    verb.add_argument("--conf", metavar="NAME", help="configuration over params.yaml, such as paper or paper+psr")
    verb.add_argument("--gpu-gb", type=float, metavar="GB", help="memory of a GPU (default: that of this machine)")
    verb.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs that share the work (default: 1)")
    verb.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where outputs go (default: data)")
    _changes(verb)


def world_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``world``: the output and a seed."""
    verb.add_argument("--preview", type=Path, required=True, metavar="FILE", help="picture to write, such as a PNG")
    verb.add_argument("--seed", type=int, default=1, metavar="N", help="another seed shows other people (default: 1)")


def demo_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``demo``: an address, a folder of adapters, changes of settings."""
    verb.add_argument("--host", default="127.0.0.1", help="address to serve (default: 127.0.0.1, this machine alone)")
    verb.add_argument("--port", type=int, default=7860, metavar="N", help="port to serve (default: 7860)")
    verb.add_argument(
        "--adapters", type=Path, default=Path("data/models"), metavar="DIR",
        help="folder of trained adapters (default: data/models)",
    )  # fmt: skip
    _changes(verb)


def table_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``table``: a folder of results, and that of people beside objects."""
    verb.add_argument("results", type=Path, nargs="?", default=Path("data/results"), metavar="DIR")
    verb.add_argument("--people", type=Path, metavar="DIR", help="results of people, for both tracks in one table")


def picture_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of ``picture``: the output, the folder of the run, the number of prompts."""
    verb.add_argument("file", type=Path, metavar="FILE")
    verb.add_argument("--data", type=Path, default=Path("data"), metavar="DIR")
    verb.add_argument("--prompts", type=int, default=4, metavar="N")


def completion_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the argument of ``completion``: a shell."""
    # A lazy import keeps the list of verbs quick.
    from shtab import SUPPORTED_SHELLS

    verb.add_argument("shell", choices=SUPPORTED_SHELLS)


def _changes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-S", dest="changes", action="append", default=[], metavar=CHANGE, help="change a setting")


VERBS: tuple[tuple[str, str, Fill, Run], ...] = (
    ("curate", "turn clips into training samples, or say why not", curation_arguments, run_curate),
    ("generate", "draw a picture of given people and objects", generation_arguments, run_generate),
    ("demo", "draw pictures of given people in the browser", demo_arguments, run_demo),
    ("score", "put any system's pictures into the benchmark table", scoring_arguments, run_score),
    ("doctor", "check models, packages, memory and disk beforehand", doctor_arguments, run_doctor),
    ("world", "draw the puppet world on one sheet", world_arguments, run_world),
    ("table", "print the benchmark table of the last run", table_arguments, run_table),
    ("picture", "draw the benchmark of the last run as one picture", picture_arguments, run_picture),
    ("completion", "print a shell's completion of these verbs", completion_arguments, run_completion),
)
"""Name, one line of help, the function that adds the arguments, and the function that runs the verb."""


if __name__ == "__main__":
    sys.exit(main())
