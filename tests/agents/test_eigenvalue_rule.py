"""Widths by Hessian eigenvalues: the flatter the loss in a unit's weights, the more of it is cut."""

from collections.abc import Mapping

import numpy as np
import pytest
from toy import toy_problem, toy_walk

from prune_env.agents import rules
from prune_env.agents.rules import eigenvalue_widths
from prune_env.env.problem import PruningProblem


def problem_of(keep: float = 0.5) -> PruningProblem:
    return toy_problem(toy_walk(), keep=keep)


def given(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, float]) -> None:
    monkeypatch.setattr(rules, "layer_eigenvalues", lambda _: values)


def keeps(problem: PruningProblem) -> dict[str, float]:
    shares = eigenvalue_widths(problem) / problem.budget.channels
    return {unit.name: float(share) for unit, share in zip(problem.budget.units, shares, strict=True)}


def test_the_most_curved_unit_stays_whole_and_the_flattest_is_cut_most(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"stem": 1e3, "down": 1e-3, "up": 1e1, "mid": 1e-1})
    found = keeps(problem_of(0.6))
    assert found["stem"] == 1.0
    assert found["down"] < found["mid"] < found["up"]


def test_scaling_all_eigenvalues_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"stem": 2.0, "down": 0.3, "up": 5.0, "mid": 0.01}
    given(monkeypatch, values)
    before = eigenvalue_widths(problem_of())
    given(monkeypatch, {name: 1e6 * value for name, value in values.items()})
    assert eigenvalue_widths(problem_of()).tolist() == before.tolist()


def test_equal_eigenvalues_give_equal_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, dict.fromkeys(("stem", "down", "up", "mid"), 0.7))
    found = list(keeps(problem_of()).values())
    assert max(found) - min(found) <= 0.1


@pytest.mark.parametrize("keep", [0.15, 0.3, 0.5, 0.9])
def test_the_budget_is_met_and_hardly_a_channel_more_would_fit(keep: float) -> None:
    problem = problem_of(keep)
    widths = eigenvalue_widths(problem)
    assert problem.budget.cost(widths) <= problem.budget.limit
    wider = np.minimum(widths + 1, problem.budget.channels)
    assert problem.budget.cost(wider) > problem.budget.limit


def test_a_budget_that_the_most_curved_unit_alone_would_break_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"stem": 1.0, "down": 1e-9, "up": 1.0, "mid": 1.0})
    problem = problem_of(0.12)
    assert problem.budget.cost(eigenvalue_widths(problem)) <= problem.budget.limit


def test_a_flat_unit_is_cut_to_its_least_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"stem": 1.0, "down": 0.0, "up": 1.0, "mid": 1.0})
    problem = problem_of(0.9)
    widths = dict(zip((unit.name for unit in problem.budget.units), eigenvalue_widths(problem).tolist(), strict=True))
    assert widths["down"] >= problem.budget.least[1]
    assert widths["stem"] == problem.budget.channels[0]
