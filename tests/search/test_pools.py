"""Many workers: the result is the same for any number of them, whatever dies, and in whatever order results come."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_whole import Broken
from toy import ToyResNet, image_set, toy_problem, toy_walk

from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.common.errors import ConfigError, EvaluationError, RunError
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial, TrialRecord
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.plan import PruningPlan
from prune_env.runs.journal import RunJournal
from prune_env.runs.run_directory import RunDirectory
from prune_env.search.pools import Pool
from prune_env.search.pools.here import Here
from prune_env.search.pools.make import idle_words, make_pool
from prune_env.search.pools.processes import TRIES, Processes
from prune_env.testing.search import LastFirst

EVALUATIONS = 30
LAG = 4


def config_of(name: str, evaluations: int = EVALUATIONS, **search: Any) -> RunConfig:
    return RunConfig.from_mapping(
        {
            "model": {"name": "toy"},
            "data": {"name": "noise"},
            "agent": {"name": name, "hidden": [8]},
            "search": {"evaluations": evaluations, "lag": LAG, **search},
        }
    )


def problem_with(kind: type[Evaluator] = Evaluator) -> PruningProblem:
    """A toy problem with probes, whose plans an evaluator of this kind measures in one thread."""
    problem = toy_problem(toy_walk(), probe_keep=0.25)
    settings = ExecutionSettings(batch=16, threads=1)
    problem.evaluator = kind(problem.walk, image_set(24, seed=1), image_set(16, seed=2), settings)
    return problem


def searched(
    problem: PruningProblem, config: RunConfig, pool: Pool, *hear: Callable[[Trial], object]
) -> list[tuple[str, Mapping[str, int], float, bool]]:
    trials: list[Trial] = []
    problem.listeners += [trials.append, *hear]
    with pool:
        train_agent(problem, config, pool=pool)
    return [(trial.proposed_by, trial.plan.widths, trial.reward, trial.cached) for trial in trials]


class TestProcesses:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["ddpg", "cma_from_rules", "random"])
    def test_give_the_same_trials_however_many_they_are(self, name: str) -> None:
        config = config_of(name)
        problem = problem_with()
        expected = searched(problem, config, Here(problem))
        for workers in (1, 2, 4) if name == "ddpg" else (2,):
            problem = problem_with()
            assert searched(problem, config, Processes(problem, workers)) == expected

    @pytest.mark.slow
    def test_that_are_killed_are_replaced_and_their_plans_measured_again(self) -> None:
        problem = problem_with()
        expected = searched(problem, config_of("ddpg"), Here(problem))
        problem = problem_with()
        pool = Processes(problem, 2)

        def kill(trial: Trial) -> None:
            if trial.number in (3, 17):
                os.kill(next(iter(pool._executor._processes)), signal.SIGKILL)

        assert searched(problem, config_of("ddpg"), pool, kill) == expected
        assert pool.status()["asked_again"] >= 1

    @pytest.mark.slow
    def test_that_one_plan_kills_each_time_end_the_search_with_what_to_give(self) -> None:
        problem = problem_with(Deadly)
        words = rf"^Evaluation 0 was measured {TRIES} times, and each time .* fewer search\.workers"
        with pytest.raises(RunError, match=words):
            searched(problem, config_of("ddpg"), Processes(problem, 1))

    @pytest.mark.slow
    def test_whose_digits_are_others_are_refused_by_name(self) -> None:
        problem = problem_with(Skewed)
        with pytest.raises(RunError, match=r"^The worker process \d+ measures the uniform plan otherwise: quality .*"):
            searched(problem, config_of("ddpg"), Processes(problem, 1))

    @pytest.mark.slow
    def test_that_cannot_be_built_in_a_process_end_the_search_with_the_reason(self) -> None:
        problem = problem_with(Broken)
        words = r"^The worker process \d+ cannot start: RunError\('cannot be built here'\)"
        with pytest.raises(RunError, match=words):
            searched(problem, config_of("ddpg"), Processes(problem, 2))

    @pytest.mark.slow
    def test_raise_the_error_of_a_plan_in_its_turn(self) -> None:
        problem = problem_with(Failing)
        heard: list[int] = []
        with pytest.raises(EvaluationError, match="this plan fails"):
            searched(problem, config_of("ddpg"), Processes(problem, 2), lambda trial: heard.append(trial.number))
        assert heard == [0, 1]

    def test_cannot_be_sent_what_is_defined_in_a_function_and_the_error_names_it(self) -> None:
        class Hidden(torch.nn.ReLU):
            pass

        model = ToyResNet()
        model.relu = Hidden()
        problem = toy_problem(toy_walk(model.eval()))
        words = r"^search\.workers: the network's module 'relu', of class .*Hidden, cannot be sent to another process"
        with pytest.raises(ConfigError, match=words):
            Processes(problem, 2)

    def test_fewer_than_one_are_refused(self) -> None:
        for given in (0, -1, "many", True):
            with pytest.raises(ConfigError, match=r"search\.workers: given .*; must be 1 or more, or auto"):
                config_of("ddpg", workers=given)
        assert config_of("ddpg", workers="auto").search.workers == "auto"


class Deadly(Evaluator):
    """Kills its process with every plan but the uniform one."""

    def run(self, plan: PruningPlan, *arguments: Any) -> Any:
        if is_probe(plan) and multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().run(plan, *arguments)


class Skewed(Evaluator):
    """Has other images in other processes."""

    def __reduce__(self) -> tuple[object, ...]:
        kind, (walk, _, calibration, *others) = super().__reduce__()
        return kind, (walk, image_set(24, seed=9), calibration, *others)


class Failing(Evaluator):
    """Fails with the third probe."""

    def run(self, plan: PruningPlan, *arguments: Any) -> Any:
        if is_probe(plan) and plan.widths["up"] == 4:
            raise EvaluationError("this plan fails")
        return super().run(plan, *arguments)


def is_probe(plan: PruningPlan) -> bool:
    return sum(plan.widths[unit.name] < unit.channels for unit in plan.units) == 1


class TestJournal:
    def test_keeps_what_came_before_its_turn_so_that_it_is_not_measured_again(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path)
        config, problem = config_of("ddpg"), problem_with()
        expected = searched(problem, config, Here(problem))

        records: list[TrialRecord] = []
        problem, journal = problem_with(), RunJournal(run, "accuracy")
        stop_after = 17

        def record(trial: Trial) -> None:
            records.append(trial.record())
            if len(records) == stop_after:
                raise KeyboardInterrupt

        problem.listeners.append(record)
        with pytest.raises(KeyboardInterrupt):
            train_agent(problem, config, pool=LastFirst(problem), journal=journal)
        early = [row["number"] for row in run_lines(run)]
        assert [number for number in early if number >= stop_after], "nothing came early"

        problem, journal = problem_with(), RunJournal(run, "accuracy")
        problem.recorded_trials = records
        measured: list[PruningPlan] = []
        run_plan = problem.evaluator.run
        problem.evaluator.run = lambda plan, *given: measured.append(plan) or run_plan(plan, *given)  # type: ignore
        trials: list[Trial] = []
        problem.listeners.append(trials.append)
        train_agent(problem, config, pool=LastFirst(problem), journal=journal)
        assert [(t.proposed_by, t.plan.widths, t.reward, t.cached) for t in trials] == expected
        kept = {tuple(row["widths"].values()) for row in run_lines(run)[: len(early)]}
        assert not [plan for plan in measured if tuple(plan.widths[name] for name in UNITS) in kept]

    def test_that_is_damaged_is_refused(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path)
        run.arrived.write_text('{"number": "one"}\n')
        with pytest.raises(
            RunError, match=r"arrived\.jsonl', line 1 is damaged: number: given 'one'; .*Remove the file"
        ):
            RunJournal(run, "accuracy")


UNITS = ("stem", "down", "up", "mid")


def run_lines(run: RunDirectory) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in run.arrived.read_text().splitlines()]


class TestIdle:
    def test_workers_are_told_of_with_their_number(self) -> None:
        words = idle_words(config_of("ddpg", workers=6))
        assert words is not None
        assert words.startswith("search.workers: 6 with search.lag: 4: 2 workers are idle")
        assert idle_words(config_of("ddpg", workers=4)) is None
        assert idle_words(config_of("random", workers=6)) is None

    def test_one_worker_is_this_process(self) -> None:
        assert isinstance(make_pool(problem_with(), config_of("ddpg")), Here)
