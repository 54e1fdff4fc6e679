import numpy as np
import pytest
from toy import toy_problem

from prune_env import RunConfig
from prune_env.agents import train_agent
from prune_env.agents.demonstrations import Demonstrations
from prune_env.agents.rules import EXPONENTS, POWERS, greedy_widths, power_widths
from prune_env.env import PruningEnv


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_agent_is_shown_the_plans_of_the_rules_and_the_uniform_one(action):
    problem = toy_problem(probe_keep=0.25)
    settings = {
        "model": {"name": "toy"},
        "data": {"name": "digits"},
        "env": {"action": action},
        "agent": {"hidden": [8]},
        "search": {"evaluations": problem.probes + 24},
    }
    tried = []
    problem.listeners.append(tried.append)
    train_agent(problem, RunConfig.from_mapping(settings))
    plans = [problem.budget.names([trial.plan.widths[unit.name] for unit in problem.budget.units]) for trial in tried]
    expected = [
        *(greedy_widths(problem, power) for power in POWERS),
        *(power_widths(problem, exponent) for exponent in EXPONENTS),
        problem.budget.uniform(),
    ]
    assert plans[problem.probes : problem.probes + 12] == [problem.budget.names(widths) for widths in expected]
    assert len(plans) == problem.probes + 24


def test_the_power_rule_keeps_more_of_what_the_probes_show_to_be_sensitive():
    problem = toy_problem(probe_keep=0.25)
    rises = np.array([problem.loss_rises[unit.name] for unit in problem.budget.units])
    ratios = power_widths(problem, 0.5) / problem.budget.channels
    assert ratios[rises.argmax()] > ratios[rises.argmin()]
    assert problem.budget.cost(power_widths(problem, 0.5)) <= problem.budget.limit


def test_nothing_is_shown_where_nothing_was_probed():
    nothing = Demonstrations(PruningEnv(problem=toy_problem()), episodes=100)
    assert len(nothing) == 0
    assert nothing.action(0) is None


def test_half_of_the_episodes_are_the_agent_s_own():
    env = PruningEnv(problem=toy_problem(probe_keep=0.25))
    assert [len(Demonstrations(env, episodes)) for episodes in (1, 2, 7, 24, 300)] == [0, 1, 3, 12, 12]
    assert Demonstrations(env, 7).action(3) is None


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_action_for_a_width_gives_that_width(action):
    env = PruningEnv(problem=toy_problem(keep=0.9), action=action)
    env.reset()
    wanted = env.problem.budget.uniform()
    for number, width in enumerate(wanted[:-1]):
        *_, info = env.step(env.action_for((width / env.problem.budget.channels[number],)))
        assert (number, info["width"]) == (number, width)
