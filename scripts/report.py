"""`prune-env report`: writes the page of a run, of several runs side by side, or of a comparison."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import TrustRun, run_command, tell, trust_of
from prune_env.commands.next_steps import print_next, with_run
from prune_env.report.page import write_report
from prune_env.report.runs_page import write_comparison_page
from prune_env.report.whole_runs import write_side_by_side
from prune_env.runs.run_directory import RunDirectory

RunsArgument = Annotated[
    list[Path],
    typer.Argument(help="The folder of a run, finished or not, or of a comparison; several folders of runs."),
]
To = Annotated[
    Path | None,
    typer.Option(help="The page of several runs. [default: report.html in the folder that holds all of them]"),
]


def report(runs: RunsArgument, to: To = None, trust: TrustRun = False) -> None:
    """Writes report.html and report.png into a run, or one page with the Pareto fronts of several runs."""
    if to is not None and len(runs) == 1:
        raise typer.BadParameter("--to is for the page of several runs; the page of one run is RUN/report.html.")
    trusted = trust_of(trust)
    if len(runs) > 1:
        page = write_side_by_side([RunDirectory.open(run).root for run in runs], to, trusted)
    elif not RunDirectory(runs[0]).config.is_file() and any(runs[0].glob("seed-*/*/config.yaml")):
        page = write_comparison_page(runs[0], trusted)
    else:
        page = write_report(RunDirectory.open(runs[0]), trusted)
    tell(str(page), whole=True)
    if len(runs) == 1 and RunDirectory(runs[0]).plan.is_file():
        print_next(with_run(runs[0], "report"))


if __name__ == "__main__":
    run_command(report)
