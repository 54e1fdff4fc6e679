"""At lag 1 the learners do what Stable-Baselines3's own `learn()` does; at any lag, workers change nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from test_searches import EVALUATIONS, PROBES, config_of, problem_of
from toy import toy_problem

from prune_env.agents import train_agent
from prune_env.agents.learners import Learner
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.evaluation.racing import Race
from prune_env.search.pools.here import Here
from prune_env.search.registry import SEARCHES
from prune_env.testing.search import LastFirst

OTHERS = ("td3", "sac", "ppo")
FAST = ("replay", "random", "greedy")
Told = list[tuple[str, Mapping[str, int], float]]


class Stop(BaseCallback):
    """Ends `learn()` after the last evaluation, before it is learned from."""

    def __init__(self, trials: list[Trial]) -> None:
        super().__init__()
        self.trials = trials

    def _on_step(self) -> bool:
        return len(self.trials) < EVALUATIONS


def weights_of(policy: Any) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in policy.actor.parameters()])


def told(trials: list[Trial]) -> Told:
    return [(trial.proposed_by, trial.plan.widths, trial.reward) for trial in trials]


def learned(name: str, seed: int) -> tuple[Told, torch.Tensor]:
    """What Stable-Baselines3's loop gives, on the environment that evaluates at its last step."""
    problem, trials = problem_of(), list[Trial]()
    problem.listeners.append(trials.append)
    search = SEARCHES.find(name)(problem, config_of(name, seed))
    assert isinstance(search, Learner)
    search.agent.learn(EVALUATIONS * PROBES, callback=Stop(trials), log_interval=None)  # type: ignore[arg-type]
    return told(trials), weights_of(search.policy)


def asked(name: str, seed: int) -> tuple[Told, torch.Tensor]:
    problem, trials = problem_of(), list[Trial]()
    problem.listeners.append(trials.append)
    found = train_agent(problem, config_of(name, seed))
    return told(trials), weights_of(found.policy)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["ddpg", *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_a_learner_proposes_and_learns_as_in_the_loop_that_it_comes_from(name: str, seed: int) -> None:
    (ours, policy), (theirs, expected) = asked(name, seed), learned(name, seed)
    assert ours == theirs
    assert torch.equal(policy, expected)


def searched(name: str, lag: int, pool: type[Here], racing: bool = False) -> list[Trial]:
    problem: PruningProblem = problem_of(batch_size=1) if racing else problem_of()
    if racing:
        problem.race = Race.on(problem.evaluator, problem.reward)
    trials = list[Trial]()
    problem.listeners.append(trials.append)
    config = config_of(name)
    config = config.model_copy(update={"search": config.search.model_copy(update={"lag": lag})})
    train_agent(problem, config, pool=pool(problem))
    return trials


@pytest.mark.parametrize("racing", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [one if one in FAST else pytest.param(one, marks=pytest.mark.slow) for one in SEARCHES.names()]
)
def test_outcomes_that_come_in_another_order_change_nothing(name: str, racing: bool) -> None:
    expected, found = (searched(name, 4, pool, racing) for pool in (Here, LastFirst))
    assert found == expected
    assert [trial.cached for trial in found] == [trial.cached for trial in expected]


def test_the_lag_changes_what_a_search_proposes_and_only_after_as_many_plans() -> None:
    one, four = (searched("cma", lag, Here) for lag in (1, 10))
    same = [a.plan.widths == b.plan.widths for a, b in zip(one, four, strict=True)]
    assert not all(same)
    # The first generation of four units has eight plans, which depend on nothing.
    assert same.index(False) == 8


def test_a_plan_that_is_in_flight_already_is_measured_once() -> None:
    problem, trials = toy_problem(), list[Trial]()
    problem.listeners.append(trials.append)
    runs = []
    run = problem.evaluator.run
    problem.evaluator.run = lambda *given: runs.append(given) or run(*given)  # type: ignore[method-assign, func-returns-value]
    problem.budget.random = lambda _: problem.budget.uniform()  # type: ignore[method-assign, assignment, misc]
    train_agent(problem, config_of("random", evaluations=6), pool=LastFirst(problem))
    assert len(runs) == 1
    assert [trial.cached for trial in trials] == [False] + [True] * 5
    assert np.ptp([trial.reward for trial in trials]) == 0.0
