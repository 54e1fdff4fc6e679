import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from prune_env.agents.ddpg import make_ddpg
from prune_env.agents.replay_buffer import EpisodeReplayBuffer
from prune_env.config.agent import AMC_PRESET, AgentSection
from prune_env.env.observation import FEATURES, STATIC

TARGET = 0.37


class Bandit(gymnasium.Env):
    """One step; the reward is the negative squared distance of the keep ratio from a target."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        ratio = (float(action[0]) + 1.0) / 2.0
        return np.zeros(2, np.float32), -((ratio - TARGET) ** 2), True, False, {}


def test_the_same_seed_learns_the_same_weights():
    def weights():
        agent = make_ddpg(Bandit(), AgentSection(), steps=1, episodes=40, seed=3)
        agent.learn(40, log_interval=None)
        return torch.cat([parameter.flatten() for parameter in agent.policy.parameters()])

    assert torch.equal(weights(), weights())


def test_actor_and_critic_learn_at_their_own_rates():
    settings = AgentSection(actor_learning_rate=1e-5, critic_learning_rate=1e-2)
    agent = make_ddpg(Bandit(), settings, steps=1, episodes=40, seed=0)
    agent.learn(40, log_interval=None)
    assert agent.actor.optimizer.param_groups[0]["lr"] == 1e-5
    assert agent.critic.optimizer.param_groups[0]["lr"] == 1e-2


class Targets(gymnasium.Env):
    """Three steps, told apart by the first feature; the reward is less the further each action is from its target."""

    observation_space = spaces.Box(-1.0, 1.0, (len(FEATURES),), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    targets = np.array([0.6, -0.6, 0.2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.taken = []
        return self._observe(), {}

    def step(self, action):
        self.taken.append(float(action[0]))
        done = len(self.taken) == len(self.targets)
        reward = -float(((np.array(self.taken) - self.targets) ** 2).sum()) if done else 0.0
        return self._observe(), reward, done, False, {}

    def _observe(self):
        observation = np.zeros(len(FEATURES), np.float32)
        observation[0] = len(self.taken) - 1.0
        return observation


def _plan(agent, env):
    """The actions of an episode without exploration."""
    observation, _ = env.reset()
    for _ in env.targets:
        action, _ = agent.predict(observation, deterministic=True)
        observation, *_ = env.step(action)
    return np.array(env.taken)


def _mean_error(episodes, **settings):
    env = Targets()
    agent = make_ddpg(env, AgentSection(warmup_episodes=10, **settings), steps=3, episodes=episodes, seed=0)
    agent.learn(3 * episodes)
    return np.abs(_plan(agent, env) - env.targets).mean()


@pytest.mark.slow
def test_steps_that_share_the_reward_each_find_their_target():
    assert _mean_error(100) < 0.1 < _mean_error(100, decomposed_episodes=0)


def test_a_critic_of_shared_credit_sees_the_unit_and_not_what_was_left_by_earlier_actions():
    agent = make_ddpg(Targets(), AgentSection(warmup_episodes=2), steps=3, episodes=8, seed=0)
    agent.learn(3 * 8)
    first = agent.critic.q_networks[0][0].weight.detach()
    fresh = make_ddpg(Targets(), AgentSection(warmup_episodes=2), steps=3, episodes=8, seed=0)
    unread = slice(len(STATIC), len(FEATURES))
    assert torch.equal(first[:, unread], fresh.critic.q_networks[0][0].weight[:, unread])
    assert not torch.equal(first[:, 0], fresh.critic.q_networks[0][0].weight[:, 0])


class ConstantReward(Targets):
    """No action is better than another, so that only imitation moves the actor; the first episode is the best."""

    def __init__(self):
        self.best = None

    def step(self, action):
        observation, _, done, *rest = super().step(action)
        first = done and self.best is None
        if first:
            self.best = np.array(self.taken)
        return observation, float(first), done, *rest


def _distances_to_the_best_plan(imitation, episodes):
    """Mean squared distance of the actor from the best plan before and after updates; 4 of the episodes are over."""
    env = ConstantReward()
    settings = AgentSection(warmup_episodes=4, imitation=imitation, critic_learning_rate=1e-12)
    agent = make_ddpg(env, settings, steps=3, episodes=episodes, seed=0)
    agent.learn(3 * 4)

    def distance():
        return np.square(_plan(agent, env) - env.best).mean()

    before = distance()
    agent.train(300)
    return before, distance()


def test_the_actor_is_held_to_the_best_plan_so_far():
    before, after = _distances_to_the_best_plan(imitation=100.0, episodes=10_000)
    assert after < 0.1 * before


@pytest.mark.parametrize(("imitation", "episodes"), [(0.0, 10_000), (100.0, 4)])
def test_the_actor_is_not_held_without_imitation_nor_once_the_search_ends(imitation, episodes):
    before, after = _distances_to_the_best_plan(imitation, episodes)
    assert after > 0.5 * before


def test_what_is_shown_is_learned_from_before_the_first_episode_of_its_own():
    class Shown:
        def __len__(self):
            return 4

        def action(self, episode):
            return np.full(1, 0.5, np.float32) if episode < 4 else None

    agent = make_ddpg(Targets(), AgentSection(), steps=3, episodes=8, seed=0, demonstrations=Shown())
    fresh = torch.cat([parameter.flatten() for parameter in agent.actor.parameters()])
    agent.learn(3 * 4)
    assert agent.acting
    assert not torch.equal(fresh, torch.cat([parameter.flatten() for parameter in agent.actor.parameters()]))


def test_the_amc_preset_sets_the_published_numbers():
    settings = AgentSection(preset="amc").with_preset()
    agent = make_ddpg(Bandit(), settings, steps=5, episodes=800, seed=0)
    assert agent.gamma == 1.0
    assert agent.tau == 0.01
    assert agent.learning_starts == 100 * 5
    assert agent.replay_buffer.buffer_size == 100 * 5
    assert agent.gradient_steps == 5
    assert [layer.out_features for layer in agent.actor.mu if isinstance(layer, torch.nn.Linear)] == [300, 300, 1]
    assert agent.decomposed == 0
    assert AMC_PRESET["noise"] == 0.5
    assert AMC_PRESET["demonstrations"] is False
    assert agent.noise.sigma(101) == pytest.approx(0.5 * 0.95)


def _buffer(momentum):
    space = Bandit.observation_space
    return EpisodeReplayBuffer(
        12, space, Bandit.action_space, handle_timeout_termination=False, baseline_momentum=momentum
    )


def _add_episode(buffer, length, reward):
    zeros = np.zeros((1, 2), np.float32)
    for step in range(length):
        done = step == length - 1
        buffer.add(zeros, zeros, np.zeros((1, 1)), np.array([reward if done else 0.0]), np.array([done]), [{}])


def test_every_transition_carries_the_reward_of_its_finished_episode():
    buffer = _buffer(0.0)
    _add_episode(buffer, 3, 0.7)
    _add_episode(buffer, 2, -0.4)
    np.testing.assert_allclose(buffer.rewards[:5, 0], [0.7, 0.7, 0.7, -0.4, -0.4], rtol=1e-6)
    assert buffer.dones[:5, 0].tolist() == [0, 0, 1, 0, 1]


def test_an_episode_that_wraps_around_the_buffer_is_relabelled_whole():
    buffer = _buffer(0.0)
    for _ in range(2):
        _add_episode(buffer, 5, 1.0)
    _add_episode(buffer, 5, 2.0)
    np.testing.assert_allclose(buffer.rewards[[10, 11, 0, 1, 2], 0], 2.0)


def test_the_moving_average_is_subtracted_from_the_sampled_rewards():
    plain, centred = _buffer(0.0), _buffer(0.5)
    for buffer in (plain, centred):
        _add_episode(buffer, 4, 3.0)
    assert plain.sample(8).rewards.mean() == pytest.approx(3.0)
    assert centred.sample(8).rewards.abs().max() == pytest.approx(0.0, abs=1e-6)
    _add_episode(centred, 8, 5.0)
    before = centred.baseline
    batch = centred.sample(64)
    mean = float(batch.rewards.mean()) + centred.baseline
    assert centred.baseline == pytest.approx(before + 0.5 * (mean - before), abs=1e-5)
