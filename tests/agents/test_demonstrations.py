import numpy as np
import pytest
from toy import toy_task

from agents import train_agent
from agents.demonstrations import Demonstrations, power_widths
from prune_env import RunConfig
from prune_env.env import PruningEnv

EXPONENTS = (0.1, 0.4)


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_agent_is_shown_the_uniform_plan_and_those_of_the_power_rule(action):
    task = toy_task(probe_keep=0.25)
    settings = {
        "model": {"name": "toy"},
        "data": {"name": "digits"},
        "env": {"action": action},
        "agent": {"demonstrations": EXPONENTS, "hidden": [8]},
        "search": {"evaluations": task.probes + 5},
    }
    tried = []
    task.listeners.append(tried.append)
    train_agent(task, RunConfig.from_mapping(settings))
    plans = [task.budget.names([trial.plan.widths[unit.name] for unit in task.budget.units]) for trial in tried]
    shown = plans[task.probes : task.probes + 3]
    assert shown[0] == task.budget.names(task.budget.uniform())
    assert shown[1:] == [task.budget.names(power_widths(task, exponent)) for exponent in EXPONENTS]
    assert len(plans) == task.probes + 5


def test_the_power_rule_keeps_more_of_what_the_probes_show_to_be_sensitive():
    task = toy_task(probe_keep=0.25)
    rises = np.array([task.loss_rises[unit.name] for unit in task.budget.units])
    ratios = power_widths(task, 0.5) / task.budget.channels
    assert ratios[rises.argmax()] > ratios[rises.argmin()]
    assert task.budget.form.cost(power_widths(task, 0.5)) <= task.budget.limit


def test_nothing_is_shown_where_nothing_was_probed():
    assert len(Demonstrations(PruningEnv(task=toy_task()), EXPONENTS)) == 0
    assert Demonstrations(PruningEnv(task=toy_task()), EXPONENTS).action(0) is None


@pytest.mark.parametrize("action", ["share", "ratio"])
def test_the_action_for_a_width_gives_that_width(action):
    env = PruningEnv(task=toy_task(keep=0.9), action=action)
    env.reset()
    wanted = env.task.budget.uniform()
    for number, width in enumerate(wanted[:-1]):
        *_, info = env.step(np.array([env.action_for(int(width))], np.float32))
        assert (number, info["width"]) == (number, width)
