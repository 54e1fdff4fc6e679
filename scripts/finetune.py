"""`prune-env finetune`: trains a run's pruned network, with the dense network as its teacher."""

from pathlib import Path
from typing import Annotated, Any

import typer

from prune_env.commands.common import AsJson, Overrides, notice, print_json, results, run_command, warn
from prune_env.commands.training_bar import shown_training
from prune_env.env.fitting import repair_warning
from prune_env.report.network_table import render
from prune_env.report.whole_runs import finetune_with_report
from prune_env.runs.finetuning import (
    FOLDER,
    FinishedTraining,
    check_searched,
    resume_finetuning,
    start_finetuning,
)
from prune_env.runs.run_directory import RunDirectory
from prune_env.tasks import quality_of

Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
Name = Annotated[str, typer.Option(help="Folder of the training within the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted training.")]


def finetune(
    run: Run,
    overrides: Overrides = None,
    name: Name = FOLDER,
    resume: Resume = False,
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
            tuning = resume_finetuning(searched, name, listener)
        else:
            tuning = start_finetuning(searched, overrides or (), name, listener)
        if tuning.workers.first and (warning := repair_warning(tuning.plan, tuning.settings)):
            notice(warning)
        finished = finetune_with_report(tuning, listener)
    if finished is None:
        return
    if as_json:
        print_json(finished.summary)
        return
    results.print(render(finished.rows, _title(finished.summary)))
    _tell_what_is_kept(finished)
    results.print(f"weights     {finished.folder.weights}", soft_wrap=True)
    results.print(f"TensorBoard {finished.folder.tensorboard}", soft_wrap=True)
    results.print(f"report      {searched.report}", soft_wrap=True)


def _tell_what_is_kept(finished: FinishedTraining) -> None:
    refused, quality = finished.summary["refused"], quality_of(finished.rows[0].task)
    if refused is not None:
        before, after = finished.rows[1].reward_quality, refused[f"reward_{quality.name}"]
        warn(
            f"The trained network is worse than its start: {quality.name} {after:{quality.format}} against "
            f"{before:{quality.format}} on the reward set, which neither was trained on. The start is kept. Give a "
            "lower finetune.learning_rate, or more finetune.epochs."
        )
    elif not finished.summary["unseen_images"]:
        notice(
            "The last epoch is kept and not compared with its start: no images are known that neither network was "
            "trained on."
        )


def _title(record: dict[str, Any]) -> str:
    epochs = len(record["epochs"])
    return (
        f"{record['model']}: {epochs} epoch{'s' if epochs != 1 else ''}, {record['seconds']:.0f} s, "
        f"{record['images_per_second']:.0f} images/s, of which the network waited for images {record['waiting']:.1%}"
    )


if __name__ == "__main__":
    run_command(finetune)
