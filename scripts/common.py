"""Common parts of the commands: settings from the command line, error messages, and the console."""

import io
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand

from prune_env.commands.console import TextConsole
from prune_env.common.errors import LibraryWarning, UserError
from prune_env.common.files import in_words, to_json
from prune_env.common.memory import keep_freed_memory
from prune_env.common.text import one_screen
from prune_env.config.trust import EVERYTHING, NOTHING, Trust
from prune_env.rewards.errors import RewardError

if TYPE_CHECKING:  # torch takes seconds, which the list of commands need not wait for
    from prune_env.config import RunConfig
    from prune_env.evaluation.dense import DenseQuality
    from prune_env.runs.networks import NetworkRow

console = TextConsole(stderr=True)
"""Progress and errors."""

results = TextConsole(width=None if sys.stdout.isatty() else 120)
"""Results, on standard output; 120 columns if it is not a terminal, which fits every table."""

WHOLE_WORDS: Mapping[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "replace_whitespace": False}
"""How lines are wrapped in a terminal."""

ConfigArgument = Annotated[
    Path, typer.Argument(help="A YAML file of settings, or a name that `prune-env configs` lists, such as digits.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that override the file: key.path=value ...")]
Force = Annotated[
    bool, typer.Option("--force", help="Go on with a dense network whose quality is near chance (run.force=true).")
]
TrustRun = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code that the settings in the run directory name. Only for runs from people whom you trust.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def run_directory_of(config: "RunConfig", path: Path) -> Path:
    """The run directory of a configuration: ``run.directory``, or runs/NAME after the file."""
    return Path(config.run.directory) if config.run.directory else Path("runs") / path.stem


def forced(overrides: list[str] | None, force: bool) -> list[str]:
    """The overrides with that of ``--force``."""
    return [*(overrides or ()), *(["run.force=true"] if force else [])]


def tell_dense(dense: "DenseQuality") -> None:
    """Prints the dense network's quality, before anything else is measured."""
    notice(str(dense))


def trust_of(given: bool) -> Trust:
    """What ``--trust`` means."""
    return EVERYTHING if given else NOTHING


def between_commas(given: str) -> list[str]:
    """The names in a comma-separated list, without duplicates."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(to_json(value))


def print_names(lines: Mapping[str, str]) -> None:
    """Prints names, each with a line that says what it is."""
    width = max(map(len, lines))
    for name, line in lines.items():
        tell(f"{name:<{width}}  {line}".rstrip(), indent=width + 2)


def tell(text: str, to: Console = results, style: str = "", whole: bool = False, indent: int = 0) -> None:
    """Prints plain text: in a terminal wrapped at words, elsewhere as one line.

    Args:
        text: The text. An indented line is a command to copy, which is never broken.
        to: The console.
        style: A style of rich, such as a colour.
        whole: Whether the text is a path or a command, which a terminal must not break.
        indent: Columns before the second line and those after it.
    """
    if to.is_terminal and not whole:
        # rich breaks words that are longer than a line, such as paths, which nobody can then copy.
        text = "\n".join(
            line
            if line.startswith("  ")
            else "\n".join(wrap(line, to.width, subsequent_indent=" " * indent, **WHOLE_WORDS))
            for line in text.splitlines()
        )
    to.print(text, style=style, highlight=False, soft_wrap=True)


def print_place(name: str, place: object) -> None:
    """Prints where a result is."""
    tell(f"{name:<12}{place}", whole=True)


def warn(text: str) -> None:
    """Prints a warning among the results."""
    tell(text, style="yellow")


def notice(text: str, whole: bool = False) -> None:
    """Prints a remark about the results on standard error."""
    tell(text, console, whole=whole)


@contextmanager
def resumable(words: Callable[[], str]) -> Iterator[None]:
    """Within, Ctrl-C ends the command with words that say what is whole and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        notice(words())
        raise typer.Exit(130) from None


def note_rivals(rows: "Sequence[NetworkRow]") -> None:
    """Prints a remark if there is no uniform plan to compare with."""
    if not any(row.name == "uniform" for row in rows):
        notice("There is no uniform plan of this cost: the free units cannot be cut that far.")


def command_line() -> str | None:
    """The command line, for a run's report; None for a resume."""
    if any(word.partition("=")[0] == "--resume" for word in sys.argv):
        return None
    file = Path(sys.argv[0]).stem
    return shlex.join(["prune-env", *([file] if file in ("train", "compare", "replay") else []), *sys.argv[1:]])


_usual_warning = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Prints the library's own warnings as words; other warnings as Python does."""
    if issubclass(category, LibraryWarning):
        notice(str(message))
    else:
        _usual_warning(message, category, *place, **more)


def run_command(command: Callable[..., Any], command_class: type[TyperCommand] | None = None) -> None:
    """Runs one command as a program; a user's mistake prints a message and exits with code 2."""
    run_app(app_of(command, command_class))


def app_of(command: Callable[..., Any], command_class: type[TyperCommand] | None = None) -> typer.Typer:
    """The typer application of one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=command_class)(command)
    return app


def run_app(app: typer.Typer) -> None:
    """Runs a typer application; prints errors of the user and of the system as messages, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A console of latin-1 shows what it cannot show as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    warnings.showwarning = _show_warning
    try:
        _check_working_directory()
        app()
    except (UserError, RewardError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {in_words(error)}")


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("The working directory does not exist any more. Change to another one: cd FOLDER.") from None


def _fail(message: str) -> NoReturn:
    """Ends the program with a message of at most one screen."""
    notice(f"error: {one_screen(message)}")
    sys.exit(2)
