"""Common parts of the commands: settings from the command line, error messages, and the console."""

import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from prune_env.common.errors import CacheWarning, DataWarning, UserError
from prune_env.common.files import to_json
from prune_env.common.memory import keep_freed_memory
from prune_env.config import RunConfig
from prune_env.config.trust import EVERYTHING, NOTHING, Trust
from prune_env.rewards import RewardError
from prune_env.runs.networks import NetworkRow

console = Console(stderr=True)
"""Progress and errors."""

results = Console(width=None if sys.stdout.isatty() else 120)
"""Results, on standard output; 120 columns if it is not a terminal, which fits every table."""

ConfigArgument = Annotated[Path, typer.Argument(help="A YAML file of settings, for example configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that override the file: key.path=value ...")]
TrustRun = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code that the settings in the run directory name. Only for runs from people whom you trust.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def run_directory_of(config: RunConfig, path: Path) -> Path:
    """The run directory of a configuration: ``run.directory``, or runs/NAME after the file."""
    return Path(config.run.directory) if config.run.directory else Path("runs") / path.stem


def trust_of(given: bool) -> Trust:
    """What ``--trust`` means."""
    return EVERYTHING if given else NOTHING


def between_commas(given: str) -> list[str]:
    """The names in a comma-separated list, without duplicates."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(to_json(value))


def warn(text: str) -> None:
    """Prints a warning among the results."""
    results.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True)


def notice(text: str) -> None:
    """Prints a remark about the results on standard error."""
    console.print(text, markup=False, highlight=False)


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
    """Prints a remark about the data or the cache as one line; other warnings as Python does."""
    if issubclass(category, DataWarning | CacheWarning):
        notice(str(message))
    else:
        _usual_warning(message, category, *place, **more)


def run_command(command: Callable[..., Any]) -> None:
    """Runs one command as a program; a user's mistake prints a message and exits with code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Runs a typer application and prints user errors as messages, without a traceback."""
    keep_freed_memory()
    warnings.showwarning = _show_warning
    try:
        app()
    except (UserError, RewardError) as error:
        console.print("[bold red]error:[/bold red] ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:
        console.print(f"error: {error.filename or 'a file'}: {error.strerror or error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted. All files written so far are complete.")
        sys.exit(130)
