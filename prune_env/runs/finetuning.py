"""Fine-tunes a run's pruned network, with the dense network as its teacher."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_env.common.copying import copied
from prune_env.common.errors import ConfigError, RunError
from prune_env.common.tensor_records import to_tensor_file
from prune_env.common.text import quoted
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits
from prune_env.env.fitting import fit_plan
from prune_env.env.loading import device_of, load_model, load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.granularity import Trainable, make_granularity
from prune_env.models import load_weights, save_weights
from prune_env.plan import PruningPlan
from prune_env.recover import Batches, Epoch, Teacher
from prune_env.recover.small_sets import for_small_set
from prune_env.recover.teacher import Ensemble
from prune_env.recover.workers import AcceleratedWorkers, Workers
from prune_env.runs.networks import NetworkRow, compare_networks
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of, use_threads
from prune_env.runs.training import (
    NOBODY,
    TrainingListener,
    set_threads,
    train_into,
    training_images,
)
from prune_env.runs.training_folder import TrainingFolder, check_same_data, resume_training, start_training
from prune_env.runs.unseen import reward_set_is_unseen
from prune_env.tasks import make_task

FOLDER = "finetune"
"""Default name of the fine-tuning's folder within a run."""

TUNED = "fine-tuned"
"""The name of the fine-tuned network in tables."""


@dataclass(frozen=True)
class Finetuning:
    """A fine-tuning that was started and may have been interrupted.

    Attributes:
        searched: The run whose pruned network is trained.
        folder: The folder of the fine-tuning.
        settings: The settings.
        workers: The processes that share the training.
        splits: The data.
        batches: The training images.
        evaluator: An evaluator of the dense network.
        dense: A copy of the dense network.
        plan: The plan that cuts the network.
        trainable: The parts that are trained besides weights; None if there are none.
        network: The network to train.
    """

    searched: RunDirectory
    folder: TrainingFolder
    settings: RunConfig
    workers: Workers
    splits: Splits
    batches: Batches
    evaluator: Evaluator
    dense: nn.Module
    plan: PruningPlan
    trainable: Trainable | None
    network: nn.Module


@dataclass(frozen=True)
class FinishedTraining:
    """A finished training.

    Attributes:
        folder: The folder of the training.
        rows: The measured networks: dense, before the training, after it.
        summary: The content of ``summary.json``.
    """

    folder: TrainingFolder
    rows: list[NetworkRow]
    summary: dict[str, Any]


def start_finetuning(
    searched: RunDirectory,
    overrides: Sequence[str] = (),
    name: str = FOLDER,
    listener: TrainingListener = NOBODY,
    trust: Trust = NOTHING,
) -> Finetuning:
    """Prepares the fine-tuning of a run's pruned network and makes its folder; `finish_finetuning` trains.

    Args:
        searched: A run with a finished search, or with only a plan.
        overrides: Settings that replace the run's: ``key.path=value``.
        name: Name of the training's folder within the run; must not exist.
        listener: Receives the progress of the training.
        trust: The code that the run's settings may name, besides what the overrides name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the search is not finished, or the folder exists.
    """
    check_searched(searched)
    place = place_of(searched, name)
    RunDirectory.check_free(place, "--name")
    given = searched.settings(overrides, trust)
    return _prepared(searched, place, settings_of(searched, overrides, trust), given, listener)


def resume_finetuning(
    searched: RunDirectory, name: str = FOLDER, listener: TrainingListener = NOBODY, trust: Trust = NOTHING
) -> Finetuning:
    """Loads an interrupted fine-tuning with its own settings; `finish_finetuning` resumes it.

    Args:
        searched: The run.
        name: Name of the training's folder within the run.
        listener: Receives the progress of the training.
        trust: The code that the training's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the training does not exist, is finished, or was started with other data.
    """
    check_searched(searched)
    place = place_of(searched, name)
    return _prepared(searched, place, settings_of(resume_training(place), trust=trust), None, listener)


def place_of(searched: RunDirectory, name: str | None = None) -> Path:
    """The folder of a fine-tuning within its run.

    Args:
        searched: The run.
        name: The folder's name; None for the usual one.

    Raises:
        ConfigError: If the name leads out of the run, or into a folder of it.
    """
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise ConfigError(f"--name: {quoted(name)} given; allowed is the name of a folder within the run, without '/'.")
    return searched.root / (name or FOLDER)


def check_searched(run: RunDirectory) -> None:
    """Checks that the search of a run is finished.

    Raises:
        RunError: If there is no plan, or the search may still replace it.
    """
    if not run.plan.is_file() or (run.evaluations_file.is_file() and not run.summary.is_file()):
        raise RunError(
            f"The search in {str(run.root)!r} is not finished: `prune-env train --resume {run.root}` resumes it."
        )


def _prepared(
    searched: RunDirectory, place: Path, settings: RunConfig, given: RunConfig | None, listener: TrainingListener
) -> Finetuning:
    """Starts a fine-tuning with the settings ``given``; if they are None, loads the existing one."""
    set_threads(settings.finetune)
    workers = AcceleratedWorkers(device_of(settings))
    splits = load_splits(settings)
    count = len(splits.train_indices) + len(splits.calibration_indices)
    section, steps = for_small_set(settings.finetune, count, workers.processes)
    settings = settings.model_copy(update={"finetune": section})
    batches = training_images(splits, section, settings.seed, workers, make_task(settings.task), steps)
    plan = PruningPlan.load(searched.plan if given is not None else TrainingFolder(place).started_plan)
    if workers.first:
        listener.on_progress("building the network and tracing it")
    model = load_model(settings, splits, accept=plan.apply)
    evaluator, plan = fit_plan(plan, _on(workers, settings), splits, model)
    dense = copied(evaluator.walk.model).eval()
    trainable = make_granularity(settings.granularity).trainable(plan)
    network = _network(plan, evaluator, settings, trainable, resume=given is None)
    if given is not None:
        folder = start_training(place, given, splits, network, workers, plan, trainable)
    else:
        folder = resume_training(place)
        check_same_data(folder, splits)
        load_weights(network, folder.start)
    return Finetuning(searched, folder, settings, workers, splits, batches, evaluator, dense, plan, trainable, network)


def finish_finetuning(
    tuning: Finetuning, listener: TrainingListener = NOBODY, answers: Path | None = None
) -> FinishedTraining | None:
    """Trains to the end, measures the networks, and writes weights, plan and ``summary.json``.

    The start is kept where the trained network is worse on images that no network of the run was trained on
    (`reward_set_is_unseen`). Where no such images are known, the last epoch is kept.

    Args:
        tuning: The fine-tuning.
        listener: Receives the progress of the training.
        answers: Folder of the teacher's outputs, which fine-tunings of the same network share; None for the run's own.

    Returns:
        The result; None in all processes except the first.

    Raises:
        EvaluationError: If the loss is not finite. The last checkpoint stays.
    """
    folder, settings, evaluator = tuning.folder, tuning.settings, tuning.evaluator
    plan, network = tuning.plan, tuning.network
    started = plan if tuning.trainable is None else PruningPlan.load(tuning.searched.plan)
    networks = {
        "dense": (tuning.dense, evaluator.walk.plan({}).costs),
        "recalibrated": (_recalibrated(tuning), plan.costs),
    }
    epochs, execution = train_into(
        folder,
        network,
        tuning.batches,
        settings.finetune,
        settings.seed,
        tuning.workers,
        evaluator.measure,
        _teacher(tuning, answers or tuning.searched.teacher),
        trainable=tuning.trainable,
        listener=listener,
    )
    if not tuning.workers.first:
        return None
    if tuning.trainable is not None:
        load_weights(network, folder.selecting)
        network, plan = tuning.trainable.finish(network, plan, evaluator.walk, settings.env.round_to or 1)
    else:
        load_weights(network, folder.weights)
    networks[TUNED] = network, plan.costs
    trained_by = torch.get_num_threads()
    use_threads(settings)  # latencies are those of the search
    rows = compare_networks(evaluator, tuning.splits, networks, settings.budget.batch)
    unseen, refused = reward_set_is_unseen(tuning.searched, tuning.splits, Trust.of(tuning.settings)), None
    if unseen and rows[2].reward_quality < rows[1].reward_quality:
        refused, rows[2] = rows[2].as_record(), replace(rows[1], name=TUNED)
        network, plan = networks["recalibrated"][0], started
    folder.write_bytes(folder.plan, plan.to_json())
    save_weights(network, folder.weights)
    right = {row.name: row.right.clone() for row in rows if row.right is not None}
    if right:
        folder.write_bytes(folder.right, to_tensor_file({}, right))
    kept = {"threads": trained_by, "unseen_images": unseen, "refused": refused}
    summary = _summary(tuning, epochs, execution, rows) | kept
    folder.write_json(folder.summary, summary)
    return FinishedTraining(folder, rows, summary)


def _network(
    plan: PruningPlan, evaluator: Evaluator, settings: RunConfig, trainable: Trainable | None, resume: bool
) -> nn.Module:
    """Makes the network to train; with ``resume``, its weights are loaded later from `TrainingFolder.start`."""
    if trainable is None:
        return plan.apply(evaluator.walk.model) if resume else evaluator.pruned(plan)
    torch.manual_seed(settings.seed)
    if resume:
        return trainable.network(plan, evaluator.walk.model, None)
    return evaluator.recalibrated(trainable.network(plan, evaluator.model, evaluator.repair))


def _teacher(tuning: Finetuning, answers: Path) -> Teacher | None:
    """The dense network, together with the networks of other fine-tunings if the settings name some.

    Raises:
        PlanError: If a named network was cut from another dense network.
        RunError: If a named fine-tuning is not finished.
    """
    section = tuning.settings.finetune
    if not section.distillation:
        return None
    networks = [tuning.dense]
    for name in section.teachers:
        folder = TrainingFolder(Path(name))
        if not folder.summary.is_file():
            raise RunError(
                f"finetune.teachers: {name!r} holds no finished fine-tuning. Give RUN/finetune, for example."
            )
        networks.append(PruningPlan.load(folder.plan).apply(tuning.dense))
        load_weights(networks[-1], folder.weights)
    return Teacher(Ensemble(networks) if section.teachers else tuning.dense, answers)


def _recalibrated(tuning: Finetuning) -> nn.Module:
    """The pruned network before the training, cut by the search's plan, which a `Trainable` may change."""
    if tuning.trainable is None:
        return copied(tuning.network)
    return tuning.evaluator.pruned(PruningPlan.load(tuning.searched.plan))


def _on(workers: Workers, settings: RunConfig) -> RunConfig:
    """The settings with this process's device."""
    section = settings.run.model_copy(update={"device": str(workers.device)})
    return settings.model_copy(update={"run": section})


def _summary(
    tuning: Finetuning, epochs: list[Epoch], execution: ExecutionSettings, rows: list[NetworkRow]
) -> dict[str, Any]:
    seconds, batches = sum(epoch.seconds for epoch in epochs), tuning.batches
    return {
        "model": tuning.settings.model.name,
        "rows": [row.as_record() for row in rows],
        "execution": asdict(execution),
        "batch_size": batches.batch_size,
        "steps": len(epochs) * len(batches),
        "seconds": seconds,
        "images_per_second": len(epochs) * len(batches) * batches.batch_size / seconds,
        "latency_batch": tuning.settings.budget.batch,
        "waiting": sum(epoch.seconds * epoch.waiting for epoch in epochs) / seconds,
        "epochs": [epoch.as_record(rows[0].task) for epoch in epochs],
        "weights": str(tuning.folder.weights),
    }
