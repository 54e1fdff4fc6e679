"""Other places that a search logs to: an Optuna study, a CSV file, and trackers of Accelerate."""

import csv

import accelerate.tracking
import numpy as np
import optuna
import pytest
from toy import digits_splits, rows_of, toy_problem

from prune_env import RunConfig
from prune_env.common.errors import ConfigError, RunError
from prune_env.report.loggers import CsvLogger, check_loggers, open_loggers
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun
from prune_env.search.episode import Episode


def searched(folder, *names: str, count: int = 3, known: int = 0) -> SearchRun:
    """A search of random plans that logs to ``names``; the first ``known`` trials are recalled from its records."""
    config = RunConfig.from_mapping({"model": {"name": "toy"}, "data": {"name": "noise"}, "run": {"log": list(names)}})
    problem = toy_problem()
    run = RunDirectory(folder / "run") if known else RunDirectory.create(folder / "run")
    problem.recorded_trials = run.evaluations("accuracy")[:known] if known else []
    search, random = SearchRun(run, config, digits_splits(), problem), np.random.default_rng(0)
    with open_loggers(search) as log:
        problem.attempt(problem.budget.uniform(), "uniform")
        for number in range(count):
            trial = problem.attempt(random.integers(problem.budget.least, problem.budget.channels + 1), "ddpg")
            log(Episode(number, count, trial, trial, {"train/actor_loss": 0.25}, 1.0), None)
            if not known:
                run.append_evaluation(trial.as_record())
    assert problem.listeners == []
    return search


def study_of(folder) -> optuna.Study:
    return optuna.load_study(study_name="run", storage=f"sqlite:///{folder / 'study.db'}")


def test_every_trial_is_a_trial_of_the_study(tmp_path):
    problem = searched(tmp_path, f"optuna://{tmp_path / 'study.db'}").problem
    study = study_of(tmp_path)
    assert study.metric_names == ["accuracy", "MACs"]
    assert [trial.user_attrs["proposed_by"] for trial in study.trials] == ["uniform", "ddpg", "ddpg", "ddpg"]
    uniform = problem.budget.names(problem.budget.uniform())
    assert study.trials[0].params == {unit.name: uniform[unit.name] / unit.channels for unit in problem.budget.units}
    for trial in study.trials:
        assert 0 <= trial.values[0] <= 1
        assert 0 < trial.values[1] <= 1
    assert study.best_trials
    assert study.user_attrs["budget.keep"] == 0.5


def test_a_study_that_goes_on_holds_every_trial_once(tmp_path):
    name = f"optuna://{tmp_path / 'study.db'}"
    run = searched(tmp_path, name).run
    uniform = toy_problem().attempt(toy_problem().budget.uniform(), "uniform").as_record()
    lines = run.evaluations_file.read_bytes()
    run.evaluations_file.unlink()
    run.append_evaluation(uniform)
    run.evaluations_file.write_bytes(run.evaluations_file.read_bytes() + lines)
    searched(tmp_path, name, count=5, known=4)
    assert [trial.user_attrs["number"] for trial in study_of(tmp_path).trials] == [0, 1, 2, 3, 4, 5]


def test_the_csv_file_has_a_line_for_each_trial(tmp_path):
    search = searched(tmp_path, "csv")
    with (search.run.root / "evaluations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    recorded = rows_of(search.run)
    for row, record in zip(rows[1:], recorded, strict=True):
        assert float(row["accuracy"]) == record["accuracy"]
        assert int(row["macs"]) == record["macs"]
        assert float(row["stem"]) == record["widths"]["stem"] / 8


@pytest.mark.parametrize("torn", [5, 10_000], ids=["a trial", "the header"])
def test_a_torn_line_of_the_csv_file_goes_when_the_search_goes_on(tmp_path, torn):
    problem, file = toy_problem(), tmp_path / "evaluations.csv"
    trial = problem.attempt(problem.budget.uniform(), "uniform")
    CsvLogger(file, problem).hear(trial)
    whole = file.read_bytes()
    file.write_bytes(whole[:-torn] or whole[:20])
    CsvLogger(file, problem).hear(trial)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("content", [b"no study of anybody" * 100, None], ids=["junk", "no folder"])
def test_a_study_that_cannot_be_opened_is_refused_by_its_file(tmp_path, content):
    file = tmp_path / ("study.db" if content else "missing/study.db")
    if content:
        file.write_bytes(content)
    with pytest.raises(RunError, match=rf"run\.log: the study '{file}' cannot be read or written: .*must be a study"):
        searched(tmp_path, f"optuna://{file}")


def test_a_tracker_hears_the_scalars_of_every_episode(tmp_path, monkeypatch):
    heard = []

    class Tracker:
        requires_logging_directory = True

        def __init__(self, project: str, logging_dir: str) -> None:
            heard.append((project, logging_dir))

        def start(self) -> None:
            heard.append("start")

        def store_init_configuration(self, values: dict) -> None:
            heard.append(values)

        def log(self, values: dict, step: int) -> None:
            heard.append((step, values["rollout/reward"], values["train/actor_loss"]))

        def finish(self) -> None:
            heard.append("finish")

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Tracker)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["mlflow"])
    run = searched(tmp_path, "mlflow").run
    rewards = [record["reward"] for record in rows_of(run)]
    (project, start, settings, *logged, finish) = heard
    assert (project, start, finish) == (("toy", str(run.root)), "start", "finish")
    assert settings["budget.keep"] == 0.5
    assert logged == [(number, reward, 0.25) for number, reward in enumerate(rewards, start=1)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wandbb", r"run\.log: 'wandbb' given; allowed are optuna://FILE\.db .*, csv, and .*mlflow.*wandb"),
        ("optuna://", "'optuna://' given; allowed are"),
        ("clearml", "'clearml' given, but its package is not installed. Install clearml"),
    ],
)
def test_a_logger_that_cannot_be_is_refused_in_words(name, words):
    with pytest.raises(ConfigError, match=words):
        check_loggers((name,))
