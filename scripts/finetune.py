"""`prune-env finetune`: train a run's pruned network, with the dense one as its teacher."""

from pathlib import Path
from typing import Annotated, Any

import typer

from prune_env.env.fitting import repair_warning
from prune_env.report.network_table import render
from prune_env.runs.directory import RunDirectory
from prune_env.runs.finetuning import FOLDER, check_searched, finish_finetuning, resume_finetuning, start_finetuning
from scripts.common import AsJson, Overrides, notice, print_json, results, run_command
from scripts.training_bar import shown_training

Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
Name = Annotated[str, typer.Option(help="Folder within the run that the training is kept in.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")]


def finetune(
    run: Run,
    overrides: Overrides = None,
    name: Name = FOLDER,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Trains a run's pruned network on all but the reward set, with the dense network as its teacher.

    Runs on several GPUs or machines by `accelerate launch --module scripts.finetune RUN`.
    """
    searched = RunDirectory.open(run)
    check_searched(searched)
    if resume and overrides:
        raise typer.BadParameter("a training goes on with its own settings: give --resume or overrides, not both.")
    if any(override.startswith("run.directory") for override in overrides or []):
        raise typer.BadParameter(
            "run.directory: a training lives within its run; --name gives it another folder there."
        )
    with shown_training() as listener:
        if resume:
            tuning = resume_finetuning(searched, name, listener)
        else:
            tuning = start_finetuning(searched, overrides or (), name, listener)
        if tuning.workers.first and (warning := repair_warning(tuning.plan, tuning.settings)):
            notice(warning)
        found = finish_finetuning(tuning, listener)
    if found is None:
        return
    if as_json:
        print_json(found.summary)
        return
    results.print(render(found.rows, _title(found.summary)))
    results.print(f"weights     {found.folder.weights}", soft_wrap=True)
    results.print(f"TensorBoard {found.folder.tensorboard}", soft_wrap=True)


def _title(record: dict[str, Any]) -> str:
    return (
        f"{record['model']}: epoch {record['best_epoch']} of {len(record['epochs'])}; {record['seconds']:.0f} s, of "
        f"which the network waited for images {record['waiting']:.1%}"
    )


if __name__ == "__main__":
    run_command(finetune)
