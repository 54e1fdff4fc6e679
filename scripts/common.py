"""What the commands share: settings from the command line, errors in words, and the console."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

import agents  # noqa: F401  (registers the searches)
from prune_env.common.errors import UserError
from prune_env.common.memory import keep_freed_memory
from prune_env.config import RunConfig
from rewards import RewardError

console = Console(stderr=True)
"""Progress and errors."""

results = Console(width=None if sys.stdout.isatty() else 120)
"""Results, on standard output; wide enough for every table where it is no terminal."""

ConfigArgument = Annotated[Path, typer.Argument(help="A YAML file of settings, for example configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that win over the file: key.path=value ...")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def read_config(path: Path, overrides: Sequence[str] | None) -> RunConfig:
    """Reads the settings and makes torch run as they ask."""
    config = RunConfig.load(path, overrides or ())
    if config.form.threads is not None:
        torch.set_num_threads(config.form.threads)
    return config


def run_directory_of(config: RunConfig, path: Path) -> Path:
    """Where the run of a configuration lives: ``run.directory``, or runs/NAME after the file."""
    return Path(config.run.directory) if config.run.directory else Path("runs") / path.stem


def between_commas(given: str) -> list[str]:
    """The names in a list with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def to_json(value: Any) -> str:
    """A value as JSON, indented; a number that is not finite is refused."""
    return json.dumps(value, indent=2, allow_nan=False)


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(to_json(value))


def run_command(command: Callable[..., Any]) -> None:
    """Runs one command as a program of its own; a user's mistake is told in words and ends with code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Runs a typer application with errors in words."""
    # The user's own modules (model.name: my_net:build) stand beside where the command is run.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    keep_freed_memory()
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
        console.print("Interrupted; what was written so far is whole.")
        sys.exit(130)
