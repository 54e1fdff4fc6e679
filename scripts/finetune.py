"""`prune-env finetune`: trains a run's pruned network, with the dense network as its teacher."""

from pathlib import Path
from typing import Annotated, Any

import typer

from prune_env.commands.common import (
    AsJson,
    Overrides,
    TrustRun,
    notice,
    print_json,
    results,
    run_command,
    trust_of,
)
from prune_env.commands.training_bar import shown_training
from prune_env.env.fitting import repair_warning
from prune_env.report.network_table import render
from prune_env.runs.finetuning import FOLDER, check_searched, finish_finetuning, resume_finetuning, start_finetuning
from prune_env.runs.run_directory import RunDirectory

Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
Name = Annotated[str, typer.Option(help="Folder of the training within the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted training.")]


def finetune(
    run: Run,
    overrides: Overrides = None,
    name: Name = FOLDER,
    resume: Resume = False,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Trains a run's pruned network on all training images except the reward set; the dense network is the teacher.

    For several GPUs or machines: `accelerate launch --module prune_env.commands.finetune RUN`.
    """
    searched = RunDirectory.open(run)
    check_searched(searched)
    if resume and overrides:
        raise typer.BadParameter("--resume uses the training's own settings: give --resume or overrides, not both.")
    if any(override.startswith("run.directory") for override in overrides or []):
        raise typer.BadParameter(
            "run.directory: a training lives within its run; --name gives another folder within the run."
        )
    with shown_training() as listener:
        if resume:
            tuning = resume_finetuning(searched, name, listener, trust_of(trust))
        else:
            tuning = start_finetuning(searched, overrides or (), name, listener, trust_of(trust))
        if tuning.workers.first and (warning := repair_warning(tuning.plan, tuning.settings)):
            notice(warning)
        finished = finish_finetuning(tuning, listener)
    if finished is None:
        return
    if as_json:
        print_json(finished.summary)
        return
    results.print(render(finished.rows, _title(finished.summary)))
    results.print(f"weights     {finished.folder.weights}", soft_wrap=True)
    results.print(f"TensorBoard {finished.folder.tensorboard}", soft_wrap=True)


def _title(record: dict[str, Any]) -> str:
    return (
        f"{record['model']}: epoch {record['best_epoch']} of {len(record['epochs'])}; {record['seconds']:.0f} s, of "
        f"which the network waited for images {record['waiting']:.1%}"
    )


if __name__ == "__main__":
    run_command(finetune)
