"""Other places that a search logs to, named by ``run.log``: an Optuna study, a CSV file, or a tracker of Accelerate.

None of them is needed: the run directory, the report and TensorBoard hold everything.
"""

import csv
import errno
import json
import math
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import accelerate.tracking
import optuna

from prune_env.common.errors import ConfigError, RunError
from prune_env.common.files import append_line, whole_lines
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.report.hyperparameters import hyperparameters
from prune_env.report.scalars import scalars_of
from prune_env.runs.searching import SearchRun
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener

OPTUNA = "optuna://"
"""The prefix of a study: ``optuna://FILE.db``, a SQLite file, which is made if it does not exist."""


class Logger(Protocol):
    """Receives every trial and every episode of a search that is not repeated by a resume."""

    def hear(self, trial: Trial) -> None:
        """Logs a trial: the uniform plan, a probe, or a plan of the search."""

    def log(self, episode: Episode) -> None:
        """Logs an episode."""

    def close(self) -> None:
        """Ends the log."""


def check_loggers(names: tuple[str, ...]) -> None:
    """Checks the names of loggers before any work.

    Raises:
        ConfigError: If a name is unknown, or its package is not installed.
    """
    known = sorted(str(name) for name in accelerate.tracking.LOGGER_TYPE_TO_CLASS)
    installed = {str(name) for name in accelerate.tracking.get_available_trackers()}
    for name in names:
        if name == "csv" or (name.startswith(OPTUNA) and name != OPTUNA):
            continue
        if name not in known:
            raise ConfigError(
                f"run.log: {name!r} given; allowed are {OPTUNA}FILE.db (an Optuna study), csv, and Accelerate's "
                f"trackers {', '.join(known)}."
            )
        if name not in installed:
            raise ConfigError(f"run.log: {name!r} given, but its package is not installed. Install {name}.")


@contextmanager
def open_loggers(search: SearchRun) -> Iterator[Listener]:
    """Opens the loggers that ``run.log`` names, for the duration of a search."""
    check_loggers(search.settings.run.log)
    with ExitStack() as stack:
        loggers = [_opened(name, search) for name in search.settings.run.log]
        for logger in loggers:
            stack.callback(logger.close)
        problem = search.problem

        def hear(trial: Trial) -> None:
            for logger in loggers:
                if not trial.recalled:
                    logger.hear(trial)

        def log(episode: Episode, _: Search) -> None:
            for logger in loggers:
                if not episode.trial.recalled:
                    logger.log(episode)

        problem.listeners.append(hear)
        stack.callback(problem.listeners.remove, hear)
        yield log


def _opened(name: str, search: SearchRun) -> Logger:
    if name == "csv":
        return CsvLogger(search.run.root / "evaluations.csv", search.problem)
    if name.startswith(OPTUNA):
        return OptunaLogger(Path(name.removeprefix(OPTUNA)), search)
    return TrackerLogger(name, search)


class CsvLogger:
    """One line for each trial: its numbers, and the keep ratio of every free unit.

    Args:
        path: The file; a resumed run goes on with it.
        problem: The problem of the search.
    """

    def __init__(self, path: Path, problem: PruningProblem) -> None:
        self._path, self._units = path, problem.budget.units
        if not whole_lines(path):
            numbers = ["number", "kind", "reward", problem.quality_name, "loss", "macs", "params", "latency", "seconds"]
            self._write([*numbers, *(unit.name for unit in self._units)])

    def hear(self, trial: Trial) -> None:
        """Writes the line of a trial."""
        outcome, widths = trial.outcome, trial.plan.widths
        costs = [outcome.macs, outcome.params, outcome.latency, round(trial.seconds, 4)]
        ratios = [widths[unit.name] / unit.channels for unit in self._units]
        numbers = [trial.number, trial.proposed_by, trial.reward, outcome.quality, outcome.loss]
        self._write([*numbers, *costs, *ratios])

    def log(self, episode: Episode) -> None:
        """Does nothing: the trial has its line."""

    def close(self) -> None:
        """Does nothing: the file is whole after every trial."""

    def _write(self, row: Iterable[Any]) -> None:
        line = StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        append_line(self._path, line.getvalue())


class OptunaLogger:
    """Every trial as a trial of an Optuna study, so that optuna-dashboard shows importances, fronts and coordinates.

    The study is named after the run's folder. Its two objectives are the quality (higher is better) and the MACs as a
    share of the dense network's (lower is better); its parameters are the keep ratios. The other numbers are
    attributes of the trials. A trial whose evaluation stopped early is a pruned one.

    Args:
        path: The SQLite file.
        search: The search.
    """

    def __init__(self, path: Path, search: SearchRun) -> None:
        self._path, self._problem = path, search.problem
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _naming_study(path):
            self._study = self._opened(search)
            self._known = {trial.user_attrs.get("number") for trial in self._study.get_trials(deepcopy=False)}

    def _opened(self, search: SearchRun) -> optuna.Study:
        study = optuna.create_study(
            storage=f"sqlite:///{self._path}",
            study_name=search.run.root.name,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names([search.problem.quality_name, "MACs"])
        for key, value in hyperparameters(search.settings).items():
            study.set_user_attr(key, value)
        return study

    def hear(self, trial: Trial) -> None:
        """Adds a trial, unless the study has it from before an interruption."""
        if trial.number in self._known:
            return
        outcome, widths = trial.outcome, trial.plan.widths
        units = self._problem.budget.units
        attributes: dict[str, Any] = {
            "number": trial.number,
            "proposed_by": trial.proposed_by,
            "reward": trial.reward,
            "loss": outcome.loss,
            "params": outcome.params / self._problem.baseline.params,
            "latency": outcome.latency,
            "seconds": trial.seconds,
            **json.loads(json.dumps({name: value for name, value in trial.edits.items() if value is not None})),
        }
        complete = outcome.complete
        values = [outcome.quality, outcome.macs / self._problem.baseline.macs]
        made = optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
            values=values if complete else None,
            params={unit.name: widths[unit.name] / unit.channels for unit in units},
            distributions={unit.name: optuna.distributions.FloatDistribution(0.0, 1.0) for unit in units},
            user_attrs=attributes,
        )
        with _naming_study(self._path):
            self._study.add_trial(made)

    def log(self, episode: Episode) -> None:
        """Does nothing: the study has the trial."""

    def close(self) -> None:
        """Does nothing: the study is complete after every trial."""


@contextmanager
def _naming_study(path: Path) -> Iterator[None]:
    """Names the file of a study in an error of SQLite, which Optuna and SQLAlchemy raise as errors of their own."""
    try:
        yield
    except Exception as error:
        found = _of_sqlite(error)
        if found is None:
            raise
        if getattr(found, "sqlite_errorname", "") == "SQLITE_FULL":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise RunError(
            f"run.log: the study {str(path)!r} cannot be read or written: {found}. Give {OPTUNA}FILE.db with a file in "
            "a folder that exists and can be written; a file that exists must be a study of Optuna."
        ) from error


def _of_sqlite(error: BaseException | None) -> sqlite3.Error | None:
    """The error of SQLite that caused an error, if one did."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


class TrackerLogger:
    """The scalars of every episode in one of Accelerate's trackers, such as ``wandb`` or ``mlflow``.

    Args:
        name: The tracker's name.
        search: The search; its network names the project.
    """

    def __init__(self, name: str, search: SearchRun) -> None:
        self._problem = search.problem
        made = accelerate.tracking.LOGGER_TYPE_TO_CLASS[name]
        folder = {"logging_dir": str(search.run.root)} if made.requires_logging_directory else {}
        self._tracker = made(search.settings.model.name, **folder)
        self._tracker.start()
        self._tracker.store_init_configuration(hyperparameters(search.settings))

    def hear(self, trial: Trial) -> None:
        """Does nothing: a tracker shows episodes."""

    def log(self, episode: Episode) -> None:
        """Logs the scalars of an episode."""
        scalars = scalars_of(episode, self._problem)
        finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
        self._tracker.log(finite, step=episode.trial.number)

    def close(self) -> None:
        """Ends the tracker's run."""
        self._tracker.finish()
