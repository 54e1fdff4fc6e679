import numpy as np
import pytest
from toy import toy_task

from agents import train_agent
from agents.demonstrations import Demonstrations
from agents.rules import EXPONENTS, POWERS, greedy_widths, power_widths
from prune_env import RunConfig
from prune_env.env import PruningEnv


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_agent_is_shown_the_plans_of_the_rules_and_the_uniform_one(action):
    task = toy_task(probe_keep=0.25)
    settings = {
        "model": {"name": "toy"},
        "data": {"name": "digits"},
        "env": {"action": action},
        "agent": {"hidden": [8]},
        "search": {"evaluations": task.probes + 24},
    }
    tried = []
    task.listeners.append(tried.append)
    train_agent(task, RunConfig.from_mapping(settings))
    plans = [task.budget.names([trial.plan.widths[unit.name] for unit in task.budget.units]) for trial in tried]
    expected = [
        *(greedy_widths(task, power) for power in POWERS),
        *(power_widths(task, exponent) for exponent in EXPONENTS),
        task.budget.uniform(),
    ]
    assert plans[task.probes : task.probes + 12] == [task.budget.names(widths) for widths in expected]
    assert len(plans) == task.probes + 24


def test_the_power_rule_keeps_more_of_what_the_probes_show_to_be_sensitive():
    task = toy_task(probe_keep=0.25)
    rises = np.array([task.loss_rises[unit.name] for unit in task.budget.units])
    ratios = power_widths(task, 0.5) / task.budget.channels
    assert ratios[rises.argmax()] > ratios[rises.argmin()]
    assert task.budget.form.cost(power_widths(task, 0.5)) <= task.budget.limit


def test_nothing_is_shown_where_nothing_was_probed():
    nothing = Demonstrations(PruningEnv(task=toy_task()), episodes=100)
    assert len(nothing) == 0
    assert nothing.action(0) is None


def test_half_of_the_episodes_are_the_agent_s_own():
    env = PruningEnv(task=toy_task(probe_keep=0.25))
    assert [len(Demonstrations(env, episodes)) for episodes in (1, 2, 7, 24, 300)] == [0, 1, 3, 12, 12]
    assert Demonstrations(env, 7).action(3) is None


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_action_for_a_width_gives_that_width(action):
    env = PruningEnv(task=toy_task(keep=0.9), action=action)
    env.reset()
    wanted = env.task.budget.uniform()
    for number, width in enumerate(wanted[:-1]):
        *_, info = env.step(env.action_for(width / env.task.budget.channels[number]))
        assert (number, info["width"]) == (number, width)
