"""Common parts of the commands: settings from the command line, error messages, and the console."""

import io
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from prune_env.commands.console import TextConsole
from prune_env.common.errors import DataWarning, DoubtfulNetworkWarning, UserError
from prune_env.common.files import in_words, to_json
from prune_env.common.memory import keep_freed_memory
from prune_env.common.text import one_screen
from prune_env.config import RunConfig
from prune_env.evaluation.dense import DenseQuality
from prune_env.rewards import RewardError
from prune_env.runs.networks import NetworkRow

console = TextConsole(stderr=True)
"""Progress and errors."""

results = TextConsole(width=None if sys.stdout.isatty() else 120)
"""Results, on standard output; 120 columns if it is not a terminal, which fits every table."""

ConfigArgument = Annotated[Path, typer.Argument(help="A YAML file of settings, for example configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that override the file: key.path=value ...")]
Force = Annotated[
    bool, typer.Option("--force", help="Go on with a dense network whose quality is near chance (run.force=true).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def run_directory_of(config: RunConfig, path: Path) -> Path:
    """The run directory of a configuration: ``run.directory``, or runs/NAME after the file."""
    return Path(config.run.directory) if config.run.directory else Path("runs") / path.stem


def forced(overrides: list[str] | None, force: bool) -> list[str]:
    """The overrides with that of ``--force``."""
    return [*(overrides or ()), *(["run.force=true"] if force else [])]


def tell_dense(dense: DenseQuality) -> None:
    """Prints the dense network's quality, before anything else is measured."""
    notice(str(dense))


def between_commas(given: str) -> list[str]:
    """The names in a comma-separated list, without duplicates."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(to_json(value))


def warn(text: str) -> None:
    """Prints a warning among the results."""
    results.print(text, style="yellow", soft_wrap=True)


def notice(text: str) -> None:
    """Prints a remark about the results on standard error."""
    console.print(text, highlight=False)


def note_rivals(rows: Sequence[NetworkRow]) -> None:
    """Prints a remark if there is no uniform plan to compare with."""
    if not any(row.name == "uniform" for row in rows):
        notice("There is no uniform plan of this cost: the free units cannot be cut that far.")


def command_line() -> str | None:
    """The command line, for a run's report; None for a resume."""
    if any(word.partition("=")[0] == "--resume" for word in sys.argv):
        return None
    file = Path(sys.argv[0]).stem
    return shlex.join(["prune-env", *([file] if file in ("train", "compare") else []), *sys.argv[1:]])


_usual_warning = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Prints a remark about data or network as words; other warnings as Python does."""
    if issubclass(category, DataWarning | DoubtfulNetworkWarning):
        notice(str(message))
    else:
        _usual_warning(message, category, *place, **more)


def run_command(command: Callable[..., Any]) -> None:
    """Runs one command as a program; a user's mistake prints a message and exits with code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Runs a typer application; prints errors of the user and of the system as messages, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A console of latin-1 shows what it cannot show as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    warnings.showwarning = _show_warning
    try:
        # Import the user's own modules (model.name: my_net:build) from the working directory.
        sys.path.insert(0, _working_directory())
        app()
    except (UserError, RewardError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {in_words(error)}")
    except KeyboardInterrupt:
        console.print("Interrupted. All files written so far are complete.")
        sys.exit(130)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise UserError("The working directory does not exist any more. Change to another one: cd FOLDER.") from None


def _fail(message: str) -> NoReturn:
    """Ends the program with a message of at most one screen."""
    console.print("error: ", style="bold red", end="")
    console.print(one_screen(message), highlight=False, soft_wrap=True)
    sys.exit(2)
