"""The search by one threshold."""

from typing import Any

import numpy as np
import pytest
from toy import digits_config, image_set, toy_problem, toy_walk

from prune_env.agents import train_agent
from prune_env.agents.thresholds import Thresholds, lowest_threshold, shares_above
from prune_env.common.errors import ConfigError
from prune_env.config.granularity import GranularitySettings
from prune_env.criteria import ScoringContext
from prune_env.env.problem import PruningProblem
from prune_env.granularity import GranularityContext
from prune_env.granularity.stripe.settings import StripeSettings


def problem_of(name: str, **given: Any) -> PruningProblem:
    settings = StripeSettings(name=name) if name == "stripe" else GranularitySettings(name=name)
    return toy_problem(**{"reward_set": image_set(4), "granularity": settings, **given})


def searched(problem: PruningProblem) -> list[Any]:
    trials: list[Any] = []
    problem.listeners.append(trials.append)
    train_agent(problem, digits_config("agent.name=thresholds"))
    return trials


@pytest.mark.parametrize("name", ["stripe", "channel"])
@pytest.mark.parametrize("keep", [0.6, 0.3])
def test_one_plan_spends_the_budget_with_one_threshold(name: str, keep: float) -> None:
    problem = problem_of(name, keep=keep)
    (trial,) = searched(problem)
    assert trial.proposed_by == "thresholds"
    assert trial.plan.budget.achieved <= keep
    # One more stripe or channel of the toy network is worth up to 6 % of it.
    assert trial.plan.budget.achieved > keep - 0.06


def test_no_lower_threshold_meets_the_budget() -> None:
    problem = problem_of("stripe", keep=0.4)
    found = lowest_threshold(problem)
    unlimited = problem.budget.unlimited()
    costs = []
    for threshold in (found, found * (1 - 1e-6)):
        builder = problem.granularity.builder(unlimited)
        for share in shares_above(problem, threshold):
            builder.decide([share])
        costs.append(builder.cost(builder.widths))
    assert costs[0] <= problem.budget.limit < costs[1]


def test_a_budget_that_nothing_must_meet_keeps_all() -> None:
    (trial,) = searched(problem_of("stripe", keep=1.0))
    assert trial.plan.budget.achieved == 1.0


def test_scores_that_are_no_strengths_are_refused_with_what_to_give() -> None:
    walk = toy_walk()
    scores = {unit.name: np.linspace(-1, 1, unit.channels) for unit in walk.units}
    context = GranularityContext(ScoringContext(walk), scores, 0.1, lambda: image_set(1).images)
    problem = toy_problem(walk, reward_set=image_set(4))
    problem.granularity.prepare(context)
    with pytest.raises(ConfigError, match=r"agent.name: thresholds .*Give granularity.name=stripe"):
        Thresholds.check(problem, digits_config("agent.name=thresholds"), 1)
