"""What the agent learns with its default settings, where the right answer is known."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from toy import toy_problem
from zoo import Net

from prune_env import LayerWalk, RunConfig
from prune_env.agents.ddpg import make_ddpg
from prune_env.config.agent import AgentSection
from prune_env.data import ImageSet
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.search.loop import train_agent

pytestmark = pytest.mark.slow

SEEDS = [0, 1, 2]
TARGET = 0.37
CLASSES = 16
CHANNELS = 12
PROTOTYPES = 4
KEEP = 0.75
ORDERS = [("essential", "duplicated"), ("duplicated", "essential")]


class Bandit(gymnasium.Env):
    """One step; the reward is the negative squared distance of the keep ratio from a target."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.ratios = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.ratios.append((float(action[0]) + 1.0) / 2.0)
        return np.zeros(2, np.float32), -((self.ratios[-1] - TARGET) ** 2), True, False, {}


def _learnt_ratio(agent):
    return (float(agent.predict(np.zeros(2, np.float32), deterministic=True)[0][0]) + 1.0) / 2.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_agent_finds_the_best_keep_ratio_of_a_bandit_in_300_episodes(seed):
    agent = make_ddpg(Bandit(), AgentSection(), steps=1, episodes=300, seed=seed)
    untrained = _learnt_ratio(agent)
    agent.learn(300, log_interval=None)
    assert abs(_learnt_ratio(agent) - TARGET) <= 0.05
    assert abs(untrained - TARGET) > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_policy_does_not_find_it(seed):
    bandit = Bandit()
    agent = make_ddpg(bandit, AgentSection(warmup_episodes=300), steps=1, episodes=300, seed=seed)
    agent.learn(300, log_interval=None)
    assert len(bandit.ratios) == 300
    assert np.std(bandit.ratios) == pytest.approx(12**-0.5, abs=0.03), "the policy is not uniformly random"
    assert abs(np.mean(bandit.ratios) - TARGET) > 0.05
    assert abs(_learnt_ratio(agent) - TARGET) > 0.05


def _duplicated_net(order: tuple[str, str]) -> Net:
    """Two units of 12 channels that cost the same: each channel of ``essential`` passes on a colour of its own.

    ``duplicated`` passes on the other 4 colours, each by 3 copies of one filter, so that 8 channels can go for nothing.
    The units are walked in the order given.
    """

    def forward(net, images):
        written = {name: torch.relu(getattr(net, name)(images)) for name in order}
        both = torch.cat([written["essential"], written["duplicated"]], 1)
        return net.fc(torch.relu(net.read(both)).mean((2, 3)))

    net = Net(
        forward,
        essential=nn.Conv2d(CLASSES, CHANNELS, 1, bias=False),
        duplicated=nn.Conv2d(CLASSES, CHANNELS, 1, bias=False),
        read=nn.Conv2d(2 * CHANNELS, CLASSES, 1, bias=False),
        fc=nn.Linear(CLASSES, CLASSES, bias=False),
    )
    with torch.no_grad():
        for module in (net.essential, net.duplicated, net.read):
            module.weight.zero_()
        net.fc.weight.copy_(4 * torch.eye(CLASSES))
        copies = CHANNELS // PROTOTYPES
        for channel in range(CHANNELS):
            colour = CHANNELS + channel % PROTOTYPES
            net.essential.weight[channel, channel] = 1.0
            net.duplicated.weight[channel, colour] = 1.0
            net.read.weight[channel, channel] = 1.0
            net.read.weight[colour, CHANNELS + channel] = 1.0 / copies
    return net.eval()


def _images(count: int, seed: int) -> ImageSet:
    """Images whose class is the one bright colour; all classes are equally frequent."""
    labels = torch.arange(count) % CLASSES
    images = 0.02 * torch.randn(count, CLASSES, 4, 4, generator=torch.Generator().manual_seed(seed))
    images[torch.arange(count), labels] += 1.0
    return ImageSet(images, labels)


def _duplicated_task(order: tuple[str, str]) -> PruningProblem:
    images = _images(64, seed=1)
    walk = LayerWalk.trace(_duplicated_net(order), images.images[:1], {"read": "sums up what both units write"})
    return toy_problem(walk, keep=KEEP, reward_set=images, calibration=_images(16, seed=2), batch_size=64)


@pytest.mark.parametrize("order", ORDERS)
def test_the_net_with_duplicates_is_what_it_says(order):
    problem = _duplicated_task(order)
    assert tuple(unit.name for unit in problem.budget.units) == order
    one_less = [problem.walk.macs({name: CHANNELS - 1}) for name in order]
    assert one_less[0] == one_less[1] < problem.walk.macs()
    assert problem.baseline.accuracy == 1.0
    for essential, duplicated, right in [(12, 4, 16), (11, 12, 15), (4, 12, 8)]:
        widths = {"essential": essential, "duplicated": duplicated}
        trial = problem.attempt(np.array([widths[name] for name in order]), "known")
        assert trial.outcome.accuracy == right / 16


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_agent_keeps_more_of_the_unit_whose_channels_all_matter_and_beats_uniform(seed, order):
    problem = _duplicated_task(order)
    document = {"seed": seed, "model": {"name": "toy"}, "data": {"name": "noise"}, "search": {"evaluations": 120}}
    config = RunConfig.from_mapping(document)
    assert config.agent == AgentSection()
    uniform = problem.attempt(problem.budget.uniform(), "uniform")
    # One unit may keep a channel more, because the uniform plan uses what the budget leaves.
    assert abs(uniform.plan.widths["duplicated"] - uniform.plan.widths["essential"]) <= 1
    found = train_agent(problem, config)
    learnt = found.policy.propose(PruningEnv(problem=problem, action=config.granularity.action))
    for trial in (found.best, problem.attempt_plan(learnt.plan, "replay")):
        assert trial.plan.widths["duplicated"] < trial.plan.widths["essential"]
        assert trial.outcome.accuracy > uniform.outcome.accuracy
        assert trial.outcome.macs <= KEEP * problem.walk.macs()
