"""Measures the networks of a finished run again: cut, recalibrated and, if there is a fine-tuning, fine-tuned."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict
from torch import nn

from prune_env.common.errors import RunError
from prune_env.common.records import Record, read_record
from prune_env.common.text import quoted
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env.fitting import fit_plan, rival_plans
from prune_env.env.loading import load_model, load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.models import load_weights
from prune_env.plan import PruningPlan
from prune_env.runs.finetuning import place_of
from prune_env.runs.networks import NetworkRow, compare_networks
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.starting import OnProgress, quietly
from prune_env.runs.training_folder import TrainingFolder
from prune_env.tasks import quality_of


@dataclass(frozen=True)
class RunNetworks:
    """The networks of a run.

    Attributes:
        splits: The data.
        evaluator: An evaluator of the dense network.
        plan: The run's plan, with its costs.
        stages: The network ``cut``, ``recalibrated`` (and repaired) and, if there is a fine-tuning, ``fine-tuned``;
            each with its plan.
    """

    splits: Splits
    evaluator: Evaluator
    plan: PruningPlan
    stages: dict[str, tuple[nn.Module, PruningPlan]]


def load_networks(run: RunDirectory, settings: RunConfig, name: str | None = None) -> RunNetworks:
    """Loads the networks of a run.

    Args:
        run: The run.
        settings: The run's settings.
        name: The folder of the fine-tuning within the run; None for ``finetune``, if it exists.

    Raises:
        PlanError: If the plan does not fit the network.
        RunError: If the fine-tuning does not exist, is not finished, or is of another plan.
        WeightsError: If the weights do not fit.
    """
    tuned = _finetuning_of(run, name)
    plan = PruningPlan.load(run.plan)
    splits = load_splits(settings)
    evaluator, plan = fit_plan(plan, settings, splits, load_model(settings, splits, accept=plan.apply))
    return RunNetworks(splits, evaluator, plan, _stages(run, tuned, evaluator, plan))


@dataclass(frozen=True)
class StageQuality:
    """The recorded quality of a run's network.

    Attributes:
        stage: ``recalibrated`` or ``fine-tuned``.
        quality: The quality, in [0, 1].
        images: The set that it was measured on: ``test``, or ``reward`` in a run without test images.
    """

    stage: str
    quality: float
    images: str


def ranked_stages(run: RunDirectory, networks: RunNetworks, name: str | None = None) -> list[StageQuality]:
    """The networks of a run that can be shipped, the best first; of equally good ones the fine-tuned first.

    The qualities are those that the fine-tuning and the search recorded; a run without a record is measured.

    Args:
        run: The run.
        networks: Its networks.
        name: As `load_networks`; a fine-tuning that is named comes first.
    """
    folder = TrainingFolder(place_of(run, name)) if "fine-tuned" in networks.stages else run
    summary = read_record(folder.summary, _Summary) if folder.summary.is_file() else _Summary(rows=[])
    names = {"recalibrated": summary.search} if folder is run else {}
    rows = {row.name: row for row in summary.rows}
    metric = quality_of(networks.evaluator.task).name
    found = [
        _recorded(stage, rows.get(names.get(stage) or stage), metric, folder.summary)
        for stage in ("fine-tuned", "recalibrated")
    ]
    known = [one for one in found if one is not None]
    if known:
        return known if name is not None else sorted(known, key=lambda one: one.quality, reverse=True)
    evaluator = networks.evaluator
    return [StageQuality("recalibrated", evaluator.measure(networks.stages["recalibrated"][0]), "reward")]


class _Row(Record):
    """A row of ``summary.json``; its qualities have the task's name."""

    model_config = ConfigDict(extra="allow")

    name: str


class _Summary(Record):
    """What the ranking reads of a ``summary.json``."""

    model_config = ConfigDict(extra="ignore")

    rows: list[_Row]
    search: str | None = None


def _recorded(stage: str, row: _Row | None, metric: str, file: Path) -> StageQuality | None:
    """A stage's quality from its row in a summary; None without a row."""
    if row is None:
        return None
    values = row.model_extra or {}
    images = "test" if f"test_{metric}" in values else "reward"
    quality = values.get(f"{images}_{metric}")
    if not (isinstance(quality, int | float) and 0.0 <= quality <= 1.0):
        raise RunError(
            f"{str(file)!r} is damaged: {images}_{metric} of the row {quoted(row.name)}: given {quoted(quality)}; must "
            f"be a number from 0 to 1. {Record.remedy}"
        )
    return StageQuality(stage, float(quality), images)


def evaluate_run(
    run: RunDirectory,
    settings: RunConfig,
    name: str | None = None,
    batch: int | None = None,
    on_progress: OnProgress = quietly,
) -> list[NetworkRow]:
    """Measures a run's network again: reward set, test set, costs, size and latency.

    Args:
        run: The run.
        settings: The run's settings.
        name: As `load_networks`.
        batch: Images in the timed batch; None takes ``budget.batch``.
        on_progress: Receives progress messages.

    Returns:
        The dense network, the uniform one at the plan's cost (if such a plan exists), then the run's network cut,
        recalibrated and (if there is a fine-tuning) fine-tuned.

    Raises:
        UserError: As `load_networks`.
    """
    on_progress("building the network and tracing it")
    loaded = load_networks(run, settings, name)
    evaluator = loaded.evaluator
    plans = rival_plans(evaluator, loaded.splits, settings, loaded.plan)
    networks = {key: (evaluator.pruned(one), one.costs) for key, one in plans.items()}
    networks |= {key: (one, own.costs) for key, (one, own) in loaded.stages.items()}
    on_progress("measuring")
    return compare_networks(evaluator, loaded.splits, networks, batch or settings.budget.batch)


def _finetuning_of(run: RunDirectory, name: str | None) -> TrainingFolder | None:
    """The finished fine-tuning with this name; without a name the usual one, None if it does not exist."""
    tuned = TrainingFolder(place_of(run, name))
    if name is None and not tuned.root.is_dir():
        return None
    if not tuned.summary.is_file():
        raise RunError(
            f"{str(tuned.root)!r} holds no finished fine-tuning. `prune-env finetune {run.root} --name "
            f"{tuned.root.name} --resume` resumes an interrupted one. To measure the network without it, move "
            "the folder away."
        )
    return tuned


def _stages(
    run: RunDirectory, tuned: TrainingFolder | None, evaluator: Evaluator, plan: PruningPlan
) -> dict[str, tuple[nn.Module, PruningPlan]]:
    stages = {"cut": (plan.apply(evaluator.walk.model), plan), "recalibrated": (evaluator.pruned(plan), plan)}
    if tuned is not None:
        started, trained = PruningPlan.load(tuned.started_plan), PruningPlan.load(tuned.plan)
        if (started.kept, started.edits) != (plan.kept, plan.edits):
            raise RunError(
                f"{str(tuned.root)!r} is the training of another plan than {str(run.plan)!r}. Move it away, or "
                "fine-tune again under another --name."
            )
        stages["fine-tuned"] = trained.apply(evaluator.walk.model), trained
        load_weights(stages["fine-tuned"][0], tuned.weights)
    return stages
