"""`prune-env report`: writes the page and the picture of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import run_command
from prune_env.commands.next_steps import print_next, with_run
from prune_env.report.page import write_report
from prune_env.runs.run_directory import RunDirectory

RunArgument = Annotated[Path, typer.Argument(help="The folder of a finished run, for example runs/digits.")]


def report(run: RunArgument) -> None:
    """Writes report.html and report.png into a finished run."""
    print(write_report(RunDirectory.open(run)))
    print_next(with_run(run, "report"))


if __name__ == "__main__":
    run_command(report)
