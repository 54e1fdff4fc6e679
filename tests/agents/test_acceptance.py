"""What the default agent finds in 200 evaluations, probes counted, where the best plan is known."""

from functools import cache

import numpy as np
import pytest

from benchmarks.synthetic_walks import best_keep, loss_at, optimum, real_cost, synthetic_problem
from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.agents.rules import RULE_PLANS
from prune_env.common.arrays import IntArray
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial

pytestmark = pytest.mark.slow

EVALUATIONS = 200
CONSTANTS = np.linspace(-1.0, 1.0, 200, dtype=np.float32)
CLOSED = {False: 0.94, True: 0.92}
"""The least share of the way from the uniform plan to the optimum, by coupling; measured were 0.95 or more."""
PROBLEMS = [(coupled, seed) for coupled in (False, True) for seed in range(5)]
every_task = pytest.mark.parametrize(("coupled", "seed"), PROBLEMS)


def searched(problem: PruningProblem, name: str, seed: int) -> list[Trial]:
    """The plans of a search with default settings, in order, without the probes."""
    config = RunConfig.from_mapping(
        {
            "seed": seed,
            "model": {"name": "chain"},
            "data": {"name": "none"},
            "agent": {"name": name},
            "search": {"evaluations": EVALUATIONS},
        }
    )
    own = problem.again()
    trials: list[Trial] = []
    own.listeners.append(trials.append)
    found = train_agent(own, config)
    assert len(trials) == EVALUATIONS
    plans = [trial for trial in trials if trial.proposed_by != "probe"]
    assert found.best == best(plans)
    return plans


def best(trials: list[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.reward)


@cache
def constant_widths() -> tuple[tuple[int, ...], ...]:
    """The plans of 400 policies that never change their action, whatever reward a plan gets."""
    problem = synthetic_problem(0, coupled=False)
    plans = set()
    for action in ("share", "ratio"):
        env = PruningEnv(problem=problem, action=action)
        for constant in CONSTANTS:
            env.reset()
            plans.add(tuple(env.step(constant[None])[-1]["width"] for _ in problem.budget.units))
    return tuple(sorted(plans))


def best_constant(problem: PruningProblem) -> IntArray:
    """The best plan of all policies that never change their action, int64 [units]."""
    plans = np.array(constant_widths())
    return min(plans, key=lambda widths: loss_at(problem, widths / problem.budget.channels))


@every_task
def test_the_agent_beats_what_learns_nothing_and_comes_close_to_the_best_plan(coupled: bool, seed: int) -> None:
    problem = synthetic_problem(seed, coupled)
    uniform = problem.again().attempt(problem.budget.uniform(), "uniform")
    lowest = optimum(problem)

    def closed(trial: Trial) -> float:
        """The share of the way from the uniform plan's loss to the optimum that a plan covers."""
        return (uniform.outcome.loss - trial.outcome.loss) / (uniform.outcome.loss - lowest)

    plans = searched(problem, "ddpg", seed)
    found = best(plans)
    drawn = best(searched(problem, "random", seed))
    constant = problem.again().attempt(best_constant(problem), "constant")
    for rival in (uniform, drawn, constant):
        assert found.reward > rival.reward
        assert found.outcome.loss < rival.outcome.loss
    if coupled:  # the greedy rule assumes the loss of a separable walk, so it is nearly optimal on such a walk
        shown = best(plans[:RULE_PLANS])
        assert found.reward > shown.reward
        assert found.outcome.loss < shown.outcome.loss
    assert CLOSED[coupled] < closed(found) <= 1.0


def test_the_task_is_what_it_says() -> None:
    problem = synthetic_problem(0, coupled=True)
    assert problem.probes == len(problem.budget.units) == 20
    assert problem.baseline == problem.evaluator.dense()
    generator = np.random.default_rng(0)
    for _ in range(20):
        widths = generator.integers(problem.budget.least, problem.budget.channels + 1)
        trial = problem.attempt(widths, "test")
        assert trial.outcome.macs == problem.budget.cost(widths) == real_cost(problem.budget.cost_form, widths)
        assert trial.outcome.accuracy == pytest.approx(np.exp(-trial.outcome.loss), abs=0.0005)
        assert trial.outcome.loss > problem.baseline.loss
    assert synthetic_problem(0, coupled=True).attempt(widths, "test").outcome == trial.outcome
    assert synthetic_problem(1, coupled=True).attempt(widths, "test").outcome != trial.outcome
    assert synthetic_problem(0, coupled=False).attempt(widths, "test").outcome.loss < trial.outcome.loss


@every_task
def test_the_optimum_spends_the_budget_and_whole_widths_come_close_to_it(coupled: bool, seed: int) -> None:
    problem = synthetic_problem(seed, coupled)
    budget, lowest = problem.budget, optimum(problem)
    wanted = budget.channels * best_keep(problem)
    assert real_cost(budget.cost_form, wanted) == pytest.approx(budget.limit, rel=1e-6)
    uniform = problem.attempt(budget.uniform(), "test").outcome.loss
    rounded = problem.attempt(budget.project(wanted), "test").outcome.loss
    assert lowest < rounded < lowest + 0.05 * (uniform - lowest)
    for beside in (budget.random(np.random.default_rng(draw), 0.05) for draw in range(20)):
        moved = budget.project(wanted * beside / budget.uniform())
        assert problem.attempt(moved, "test").outcome.loss > lowest
