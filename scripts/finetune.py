"""`prune-env finetune`: train a run's pruned network, with the dense one as its teacher."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.granularity import Trainable, make_granularity
from prune_env.models import load_weights, save_weights
from prune_env.plan import PruningPlan
from prune_env.recover import Epoch, Passes
from prune_env.recover.workers import AcceleratedWorkers, Workers
from prune_env.report.network_table import NetworkRow, compare_networks, render
from prune_env.runs.directory import RunDirectory
from prune_env.runs.searching import settings_of
from prune_env.runs.training import (
    TrainingFolder,
    check_same_data,
    epoch_to_keep,
    resume_training,
    set_threads,
    start_training,
    train_into,
    training_images,
)
from prune_env.tasks import make_task
from scripts.common import AsJson, Overrides, console, print_json, results, run_command
from scripts.replay import fit_plan

Run = Annotated[Path, typer.Argument(help="The directory of a run with a plan.json.")]
Name = Annotated[str, typer.Option(help="Folder within the run that the training is kept in.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")]


def finetune(
    run: Run,
    overrides: Overrides = None,
    name: Name = "finetune",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Trains a run's pruned network on all but the reward set, with the dense network as its teacher.

    Runs on several GPUs or machines by `accelerate launch --module scripts.finetune RUN`.
    """
    searched = RunDirectory.open(run)
    if not searched.plan.is_file() or (searched.evaluations_file.is_file() and not searched.summary.is_file()):
        raise RunError(f"The search in {str(run)!r} is not finished: `prune-env train --resume {run}` goes on with it.")
    place = searched.root / name
    if resume and overrides:
        raise typer.BadParameter("a training is taken up with its own settings: give --resume or overrides, not both.")
    if any(override.startswith("run.directory") for override in overrides or []):
        raise typer.BadParameter(
            "run.directory: a training lives within its run; --name gives it another folder there."
        )
    if not resume:
        RunDirectory.check_free(place, "--name")
    settings = settings_of(resume_training(place)) if resume else settings_of(searched, overrides or [])
    set_threads(settings.finetune)
    workers = AcceleratedWorkers(device_of(settings))
    splits = load_splits(settings)
    batches = training_images(splits, settings.finetune, settings.seed, workers, make_task(settings.task))
    plan = PruningPlan.load(TrainingFolder(place).started_plan if resume else searched.plan)
    with console.status("building the network and tracing it") if workers.first else nullcontext():
        model = load_model(settings, splits, accept=plan.apply)
        evaluator, plan = fit_plan(plan, _on(workers, settings), splits, model)
        dense = copy.deepcopy(evaluator.walk.model).eval()
        trainable = make_granularity(settings.granularity).trainable(plan)
        network = _network(plan, evaluator, settings, trainable, resume)
        if resume:
            folder = resume_training(place)
            check_same_data(folder, splits)
            load_weights(network, folder.start)
        else:
            given = RunConfig.load(searched.config, overrides or [])
            folder = start_training(place, given, splits, network, workers, plan, trainable)
    networks = {
        "dense": (dense, evaluator.walk.plan({}).costs),
        "recalibrated": (_recalibrated(network, searched, evaluator, trainable), plan.costs),
        "fine-tuned": (network, plan.costs),
    }
    teacher = dense if settings.finetune.distillation else None
    chosen = settings.finetune
    epochs, passes = train_into(
        folder,
        network,
        batches,
        chosen,
        settings.seed,
        workers,
        evaluator.measure,
        teacher,
        trainable=trainable,
    )
    if not workers.first:
        return
    if trainable is not None:
        load_weights(network, folder.selecting)
        network, plan = trainable.finish(network, plan, evaluator.walk, settings.env.round_to or 1)
        folder.write_bytes(folder.plan, plan.to_json())
        save_weights(network, folder.weights)
        networks["fine-tuned"] = network, plan.costs
    else:
        load_weights(network, folder.weights)
    rows = compare_networks(evaluator, splits, networks, batch=None)
    record = _finish(folder, settings, epochs, passes, rows)
    if as_json:
        print_json(record)
        return
    results.print(render(rows, _title(record)))
    results.print(f"weights     {folder.weights}", soft_wrap=True)
    results.print(f"TensorBoard {folder.tensorboard}", soft_wrap=True)


def _network(
    plan: PruningPlan, evaluator: Evaluator, settings: RunConfig, trainable: Trainable | None, resume: bool
) -> nn.Module:
    """What is trained, as its plan makes it; a resumed one gets its weights from the training's start."""
    if trainable is None:
        return plan.apply(evaluator.walk.model) if resume else evaluator.pruned(plan)
    torch.manual_seed(settings.seed)
    if resume:
        return trainable.network(plan, evaluator.walk.model, None)
    return evaluator.recalibrated(trainable.network(plan, evaluator.model, evaluator.repair))


def _recalibrated(
    network: nn.Module, searched: RunDirectory, evaluator: Evaluator, trainable: Trainable | None
) -> nn.Module:
    """The network before its training: as the search's plan has it, which training more than weights may change."""
    return copy.deepcopy(network) if trainable is None else evaluator.pruned(PruningPlan.load(searched.plan))


def _on(workers: Workers, settings: RunConfig) -> RunConfig:
    """The settings for this process's own device."""
    section = settings.run.model_copy(update={"device": str(workers.device)})
    return settings.model_copy(update={"run": section})


def _finish(
    folder: TrainingFolder, settings: RunConfig, epochs: list[Epoch], passes: Passes, rows: list[NetworkRow]
) -> dict[str, Any]:
    seconds = sum(epoch.seconds for epoch in epochs)
    record = {
        "model": settings.model.name,
        "rows": [row.as_record() for row in rows],
        "best_epoch": epoch_to_keep(epochs, len(epochs)).number,
        "passes": passes._asdict(),
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "waiting": sum(epoch.seconds * epoch.waiting for epoch in epochs) / seconds,
        "epochs": [epoch.as_record(rows[0].task) for epoch in epochs],
        "weights": str(folder.weights),
    }
    folder.write_json(folder.summary, record)
    return record


def _title(record: dict[str, Any]) -> str:
    return (
        f"{record['model']}: epoch {record['best_epoch']} of {len(record['epochs'])}; {record['seconds']:.0f} s, of "
        f"which the network waited for images {record['waiting']:.1%}"
    )


if __name__ == "__main__":
    run_command(finetune)
