"""Reads and checks the files of a run for its report."""

from collections.abc import Iterable
from math import inf, nan
from pathlib import Path

from prune_env.common.errors import RunError
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.env.problem_record import ProblemRecord, problem_record
from prune_env.granularity import Granularity, make_granularity
from prune_env.plan import PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.recover.checkpoint import epochs_in
from prune_env.report.figures import NOT_A_SEARCH
from prune_env.report.run_record import PlanTried, RunRecord, TrainingRecord
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.starting import measurements_of
from prune_env.runs.summaries import Summary, TrainingSummary, named
from prune_env.runs.training_folder import TrainingFolder
from prune_env.tasks import Task, make_task, quality_of


def read_run(run: RunDirectory, trust: Trust = NOTHING) -> RunRecord:
    """Reads the files of a run.

    Args:
        run: The run.
        trust: The code that the run's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the search has not tried a plan yet, or one of the files is damaged.
        PlanError: If the plan of a finished run is missing, or the plan is damaged.
    """
    config = run.settings(trust=trust)
    task = make_task(config.task)
    quality = quality_of(task).name
    summary = read_record(run.summary, named(Summary, quality)) if run.summary.is_file() else None
    if not any(file.is_file() for file in (run.summary, run.evaluations_file, run.plan)):
        raise RunError(
            f"{str(run.root)!r} has no {run.evaluations_file.name}, which a search writes with its first plan: there "
            "is nothing to report yet. Let the search try a plan, then write the report again."
        )
    plan = PruningPlan.load(run.plan) if summary is not None or run.plan.is_file() else None
    problem = _problem_of(run, plan, quality)
    granularity = _granularity_of(run, config)
    settings = _text(run.config)
    return RunRecord(
        name=run.root.name,
        config=config,
        summary=summary,
        metric=quality_of(task),
        problem=problem,
        plan=plan,
        trials=_trials_of(run, problem, granularity, quality),
        granularity=granularity,
        trainings=[_training_of(folder, task, trust) for folder in _trainings_in(run)],
        sparsified=_training_of(TrainingFolder(run.sparsify), task, trust) if run.sparsify.is_dir() else None,
        rivals=_rivals_of(run, config, quality),
        sensitivity=read_record(run.sensitivity, SensitivityReport) if run.sensitivity.is_file() else None,
        pictures=run.pictures.read_bytes() if run.pictures.is_file() else None,
        settings=settings,
        versions=dict(_versions(settings)),
    )


def _problem_of(run: RunDirectory, plan: PruningPlan | None, quality: str) -> ProblemRecord:
    if run.problem.is_file():
        return read_record(run.problem, problem_record(quality))
    if plan is None:
        raise RunError(
            f"{str(run.root)!r} has neither {run.problem.name} nor {run.plan.name}: there is nothing to report yet. "
            "Let the search find a plan, then write the report again."
        )
    return ProblemRecord.of_plan(plan)


def _trials_of(run: RunDirectory, problem: ProblemRecord, granularity: Granularity, quality: str) -> list[PlanTried]:
    channels = {unit.name: unit.channels for unit in problem.units}
    free = [unit.name for unit in problem.units if unit.protected is None]
    trials = []
    for number, record in enumerate(run.evaluations(quality)):
        where = f"{str(run.evaluations_file)!r}, line {number + 1} is damaged"
        if record.widths.keys() != set(free) or any(record.widths[name] > channels[name] for name in free):
            source = (run.problem if run.problem.is_file() else run.plan).name
            raise RunError(f"{where}: widths: they are not of the network in {source}. {record.remedy}")
        try:
            series = granularity.series(record.edits)
        except RunError as error:
            raise RunError(f"{where}: {error}") from None
        trial = PlanTried(
            number=number,
            proposed_by=record.kind,
            reward=record.reward,
            quality=record.quality if record.images is None else nan,
            loss=record.loss,
            macs=record.macs / problem.dense.macs,
            params=record.params / problem.dense.params,
            latency=record.latency,
            seconds=record.seconds,
            cached=record.cached,
            widths=tuple(record.widths[name] for name in free),
            series=series,
        )
        trials.append(trial)
    return trials


def _trainings_in(run: RunDirectory) -> list[TrainingFolder]:
    """The folders of the run's fine-tunings, the usual one first."""
    folders = [config.parent for config in run.root.glob("[!.]*/config.yaml") if config.parent != run.sparsify]
    started = [TrainingFolder(folder) for folder in folders if (folder / "start.safetensors").is_file()]
    return sorted(started, key=lambda folder: (folder.root.name != "finetune", folder.root.name))


def _training_of(folder: TrainingFolder, task: Task, trust: Trust) -> TrainingRecord:
    settings, quality = folder.settings(trust=trust), quality_of(task).name
    sparse = folder.root.name == RunDirectory(folder.root.parent).sparsify.name
    summary = (
        read_record(folder.summary, named(TrainingSummary, quality))
        if folder.summary.is_file() and not sparse
        else None
    )
    planned = (settings.sparsify if sparse else settings.finetune).epochs
    return TrainingRecord(folder.root.name, planned, epochs_in(folder.checkpoint, task), summary)


def _rivals_of(run: RunDirectory, config: RunConfig, quality: str) -> dict[str, list[float]]:
    """The curves of the other searches in a comparison's folder, FOLDER/seed-SEED/SEARCH."""
    if run.root.name != config.agent.name or run.root.absolute().parent.name != f"seed-{config.seed}":
        return {}
    others = sorted(file.parent for file in run.root.absolute().parent.glob("[!.]*/evaluations.jsonl"))
    return {folder.name: best_rewards(folder, quality) for folder in others if folder.name != run.root.name}


def best_rewards(folder: Path, quality: str) -> list[float]:
    """The best reward so far of a run's search after each evaluation (`best_rewards_of`)."""
    return best_rewards_of((trial.kind, trial.reward) for trial in RunDirectory(folder).evaluations(quality))


def best_rewards_of(rewards: Iterable[tuple[str, float]]) -> list[float]:
    """The best reward so far after each evaluation, from 0 on; the first plan counts until the search has its own.

    Args:
        rewards: Who proposed each plan, and its reward.
    """
    best: list[float] = []
    own = -inf
    for kind, reward in rewards:
        if kind not in NOT_A_SEARCH:
            own = max(own, reward)
        best.append(own if own > -inf else best[0] if best else reward)
    return best


def _granularity_of(run: RunDirectory, settings: RunConfig) -> Granularity:
    granularity, measured = make_granularity(settings.granularity), measurements_of(run, settings)
    return granularity if measured is None else granularity.restore(measured)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from None


def _versions(settings: str) -> list[tuple[str, str]]:
    """Package names and versions from the comments that `RunDirectory.write_config` puts above the settings."""
    versions = []
    for line in settings.splitlines():
        name, _, version = line.removeprefix("# ").partition(" ")
        if not line.startswith("# ") or not version:
            break
        versions.append((name, version))
    return versions
