"""`prune-env report`: writes the page and the picture of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import TrustRun, run_command, trust_of
from prune_env.report.page import write_report
from prune_env.runs.run_directory import RunDirectory

RunArgument = Annotated[Path, typer.Argument(help="The folder of a finished run, for example runs/digits.")]


def report(run: RunArgument, trust: TrustRun = False) -> None:
    """Writes report.html and report.png into a finished run."""
    print(write_report(RunDirectory.open(run), trust_of(trust)))


if __name__ == "__main__":
    run_command(report)
