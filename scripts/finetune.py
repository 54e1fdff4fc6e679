"""`prune-env finetune`: trains a run's pruned network, with the dense network as its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import (
    AsJson,
    Overrides,
    TrustRun,
    notice,
    print_json,
    print_place,
    results,
    resumable,
    run_command,
    tell,
    trust_of,
    warn,
)
from prune_env.commands.next_steps import after_interrupted_finetuning, print_next, with_run
from prune_env.commands.progress import shown_training
from prune_env.common.words import counted
from prune_env.config.trust import NOTHING, Trust
from prune_env.env.fitting import repair_warning
from prune_env.report.network_table import render, warnings_of
from prune_env.report.verdicts import against_dense
from prune_env.report.whole_runs import finetune_with_report
from prune_env.runs.finetuning import (
    FOLDER,
    TUNED,
    FinishedTraining,
    check_searched,
    resume_finetuning,
    start_finetuning,
)
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.summaries import row_records
from prune_env.tasks import quality_of

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
    finished = run_finetuning(searched, overrides or (), name, resume, trust_of(trust))
    if finished is None:
        return
    if as_json:
        print_json(finished.summary)
        return
    print_finetuning(finished)
    print_place("report", searched.report)
    for warning in warnings_of([row for row in finished.rows if row.name in ("dense", TUNED)]):
        warn(warning)
    print_next(with_run(run, "finetune"))


def run_finetuning(
    searched: RunDirectory,
    overrides: Sequence[str] = (),
    name: str = FOLDER,
    resume: bool = False,
    trust: Trust = NOTHING,
) -> FinishedTraining | None:
    """Runs a whole fine-tuning, shows its progress, and keeps the report of its run up to date.

    Returns:
        The result; None in all processes except the first.
    """
    with resumable(lambda: after_interrupted_finetuning(searched.root, name)), shown_training() as listener:
        if resume:
            tuning = resume_finetuning(searched, name, listener, trust)
        else:
            tuning = start_finetuning(searched, overrides, name, listener, trust)
        if tuning.workers.first and (warning := repair_warning(tuning.plan, tuning.settings)):
            notice(warning)
        return finetune_with_report(tuning, listener, trust)


def print_finetuning(finished: FinishedTraining) -> None:
    """Prints the result of a fine-tuning: against the dense network, the table, and where its files are."""
    rows, record = row_records(finished.rows), finished.summary
    tell(against_dense(rows[TUNED], rows["dense"], quality_of(finished.rows[0].task).name), style="bold")
    title = (
        f"{record['model']}: {counted(len(record['epochs']), 'epoch')}, {record['seconds']:.0f} s, "
        f"{record['images_per_second']:.0f} images/s, of which the network waited for images {record['waiting']:.1%}"
    )
    results.print(render(finished.rows, title, record["latency_batch"]))
    _tell_what_is_kept(finished)
    print_place("weights", finished.folder.weights)
    print_place("TensorBoard", finished.folder.tensorboard)


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


if __name__ == "__main__":
    run_command(finetune)
