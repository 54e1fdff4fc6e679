"""Reinforcement learners as searches: DDPG and its relatives from Stable-Baselines3, on the problem's environment."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from prune_env.agents.ddpg import PruningTD3, make_ddpg, make_td3
from prune_env.agents.demonstrations import Demonstrations, demonstration_count
from prune_env.agents.replay_buffer import EpisodeReplayBuffer
from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig
from prune_env.config.agent import AgentSection
from prune_env.env import PruningEnv
from prune_env.env.observation import FloatArray
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.search import Proposal, Search
from prune_env.search.policy import Bound, Policy, load_policy, policy_of
from prune_env.search.registry import register_search

PPO_EPISODES = 8
"""Episodes that PPO collects between two updates [our choice]."""


@dataclass(frozen=True, eq=False)
class Walked:
    """An episode that waits for its reward.

    Attributes:
        observations: float32 [steps + 1, features]; the last one is of the finished walk.
        told: For each step what the learner stores of its action.
    """

    observations: FloatArray
    told: Sequence[Any]


class Learner(Search):
    """A reinforcement learner that decides unit after unit; one episode is one trial.

    Attributes:
        asked: How many episodes have been proposed.
        told: How many outcomes have been told.
        start: The policy that the agent starts from; None if it starts from random weights.
        learns_each_episode: Whether the agent learns after every episode, rather than after several.
        bound: What bounds the actor's actions, as in `Policy.bound`.
    """

    probes = takes_policy = True
    learns_each_episode: ClassVar[bool] = True
    bound: ClassVar[Bound] = "tanh"

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a policy to start from that does not fit the agent.

        Raises:
            ConfigError: Names the setting and the policy's value.
        """
        if config.agent.policy is None:
            return
        policy = load_policy(config.agent.policy)
        policy.check(config)
        policy.check_action(config.granularity.action)
        if policy.hidden != (given := config.agent.with_preset().hidden):
            raise ConfigError(
                f"agent.hidden: {list(given)} given, but agent.policy has {list(policy.hidden)}. Give "
                f"agent.hidden={list(policy.hidden)}."
            )
        if policy.bound != cls.bound:
            raise ConfigError(
                f"agent.policy: {config.agent.policy} bounds its actions by {policy.bound}, and {config.agent.name} by "
                f"{cls.bound}. Give a policy of this agent, or agent.name=replay."
            )

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self.steps = len(problem.budget.units)
        self.episodes = config.search.scheduled - problem.probes
        self.env = PruningEnv(problem=problem, action=config.granularity.action, proposed_by=config.agent.name)
        self.start = None if config.agent.policy is None else load_policy(config.agent.policy)
        self.agent = self._make(self.env, config.agent.with_preset(), config.seed)
        self.agent.set_logger(Logger(None, []))
        if self.start is not None:
            self._start_from(self.start)
        self.asked = self.told = 0

    def _start_from(self, policy: Policy) -> None:
        """Gives the actor the weights of a policy."""
        linears = [layer for layer in self._actor().modules() if isinstance(layer, nn.Linear)]
        for layer, known in zip(linears, policy.layers, strict=True):
            layer.load_state_dict(known.state_dict())

    @abstractmethod
    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> BaseAlgorithm:
        """Builds the untrained agent."""

    def ask(self) -> Proposal | None:
        """Walks the environment once with the agent's actions."""
        observation, _ = self.env.reset()
        observations, told = [observation], []
        self.agent.policy.set_training_mode(False)
        with torch.no_grad():
            for step in range(self.steps):
                action, remembered = self._act(observation, step)
                self.env.decide(action)
                observation = self.env.observation()
                observations.append(observation)
                told.append(remembered)
        self.asked += 1
        return self.env.proposal(Walked(np.stack(observations), told))

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        """Stores the episode and learns."""
        self.told += 1
        self._learn(proposal.note, np.float32(trial.reward))

    @abstractmethod
    def _act(self, observation: FloatArray, step: int) -> tuple[FloatArray, Any]:
        """The agent's action for an observation [features], [numbers], and what `_learn` needs of it."""

    @abstractmethod
    def _learn(self, episode: "Walked", reward: np.float32) -> None:
        """Stores a finished episode and updates the networks."""

    def _actor(self) -> nn.Module:
        """The layers that decide the most likely action."""
        return self.agent.policy.get_submodule("actor.mu")

    @property
    def policy(self) -> Policy:
        """The current deterministic policy, which takes the most likely action."""
        return policy_of(self._actor(), self.env, self.bound)

    @property
    def scalars(self) -> Mapping[str, float]:
        """Mean losses of the last updates."""
        losses = self.agent.logger.name_to_value
        return {
            f"train/{name}": losses[f"train/{name}"]
            for name in ("actor_loss", "critic_loss")
            if f"train/{name}" in losses
        }


class OffPolicyLearner(Learner):
    """A learner that learns from a replay buffer after every episode."""

    agent: OffPolicyAlgorithm

    def _act(self, observation: FloatArray, step: int) -> tuple[FloatArray, Any]:
        agent = self.agent
        # Stable-Baselines3's agents read these: exploration and warm-up go by the number of episode and step.
        agent._last_obs, agent._episode_num = observation[None], self.asked
        agent.num_timesteps = self.asked * self.steps + step
        action, stored = agent._sample_action(agent.learning_starts, agent.action_noise)
        return action[0], stored[0]

    def _learn(self, episode: "Walked", reward: np.float32) -> None:
        agent, steps = self.agent, self.steps
        buffer = agent.replay_buffer
        assert isinstance(buffer, EpisodeReplayBuffer)
        buffer.add_episode(episode.observations, np.stack(episode.told), reward)
        agent._episode_num, agent.num_timesteps = self.told, self.told * steps
        if agent.num_timesteps > agent.learning_starts:
            agent.train(gradient_steps=agent.gradient_steps, batch_size=agent.batch_size)


class _DemonstratedLearner(OffPolicyLearner):
    """A learner that explores with noise and starts with demonstrations."""

    agent: PruningTD3

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:
        """Refuses a policy that does not fit, and a warm-up that leaves no episode after the demonstrations."""
        super().check(problem, config, episodes)
        demonstrations = 0 if config.agent.policy is None else 1
        if config.agent.with_preset().demonstrations:
            granularity = problem.granularity.with_action(config.granularity.action)
            demonstrations += demonstration_count(problem, granularity, episodes)
        check_warmup(config, episodes - demonstrations)

    def _start_from(self, policy: Policy) -> None:
        super()._start_from(policy)
        self.agent.actor_target.load_state_dict(self.agent.actor.state_dict())

    def _demonstrations(self, env: PruningEnv, settings: AgentSection) -> Demonstrations | None:
        if self.start is None and not settings.demonstrations:
            return None
        return Demonstrations(env, self.episodes, self.start, rules=settings.demonstrations)

    @property
    def independent(self) -> float:
        """The demonstrations: they are decided before the search."""
        demonstrations = self.agent.demonstrations
        return len(demonstrations) if demonstrations is not None else 0

    @property
    def scalars(self) -> Mapping[str, float]:
        """Standard deviation of the exploration once the agent acts, and mean losses of the last updates."""
        scalars, noise = dict(super().scalars), self.agent.noise
        if self.told >= noise.warmup:
            scalars["train/sigma"] = noise.sigma(self.told)
        return scalars


@register_search("ddpg")
class DdpgSearch(_DemonstratedLearner):
    """Our agent: DDPG with the reward of a plan shared among the episode's steps."""

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> PruningTD3:
        return make_ddpg(env, settings, self.steps, self.episodes, seed, self._demonstrations(env, settings))


@register_search("td3")
class Td3Search(_DemonstratedLearner):
    """TD3 (twin critics); every step carries the whole plan's reward."""

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> PruningTD3:
        return make_td3(env, settings, self.steps, self.episodes, seed, self._demonstrations(env, settings))


@register_search("sac")
class SacSearch(OffPolicyLearner):
    """SAC (Haarnoja et al., 2018) from Stable-Baselines3; every step carries the whole plan's reward."""

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:
        """Refuses a policy that does not fit, and a warm-up that leaves the agent no episode."""
        super().check(problem, config, episodes)
        check_warmup(config, episodes)

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> SAC:
        warmup = settings.warmup_episodes
        if warmup is None:
            warmup = 0 if self.start is not None else max(1, self.episodes // 10)
        return SAC(
            "MlpPolicy",
            env,
            learning_rate=settings.critic_learning_rate,
            buffer_size=min(settings.buffer_episodes, self.episodes) * self.steps,
            learning_starts=warmup * self.steps,
            batch_size=settings.batch_size,
            tau=settings.tau,
            gamma=settings.gamma,
            train_freq=(1, "episode"),
            gradient_steps=max(1, round(settings.updates_per_step * self.steps)),
            replay_buffer_class=EpisodeReplayBuffer,
            replay_buffer_kwargs={
                "baseline_momentum": settings.baseline_momentum,
                "handle_timeout_termination": False,
            },
            policy_kwargs=_networks(settings),
            device="cpu",
            seed=seed,
        )

    def _actor(self) -> nn.Module:
        return nn.Sequential(*(self.agent.policy.get_submodule(f"actor.{name}") for name in ("latent_pi", "mu")))


@register_search("ppo")
class PpoSearch(Learner):
    """PPO (Schulman et al., 2017) from Stable-Baselines3; only the last step carries the reward, undiscounted."""

    learns_each_episode = False
    bound = "clip"
    agent: PPO

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._starts = np.arange(self.steps) == 0

    def _act(self, observation: FloatArray, step: int) -> tuple[FloatArray, Any]:  # noqa: ARG002
        action, value, log_probability = self.agent.policy(torch.from_numpy(observation[None]))
        return np.clip(action[0].numpy(), -1.0, 1.0), (action.numpy(), value, log_probability)

    def _learn(self, episode: "Walked", reward: np.float32) -> None:
        buffer = self.agent.rollout_buffer
        for step, (action, value, log_probability) in enumerate(episode.told):
            earned = np.array([reward if step == self.steps - 1 else 0.0], dtype=np.float32)
            observation, start = episode.observations[step][None], self._starts[step : step + 1]
            buffer.add(observation, action, earned, start, value, log_probability)
        if not buffer.full:
            return
        # The last step ends an episode, so that no value follows it.
        buffer.compute_returns_and_advantage(last_values=torch.zeros(1, 1), dones=np.ones(1))
        self.agent.train()
        buffer.reset()

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> PPO:
        return PPO(
            "MlpPolicy",
            env,
            learning_rate=settings.actor_learning_rate,
            n_steps=PPO_EPISODES * self.steps,
            batch_size=PPO_EPISODES * self.steps // 2,
            gamma=1.0,
            gae_lambda=1.0,
            policy_kwargs=_networks(settings),
            device="cpu",
            seed=seed,
        )

    def _actor(self) -> nn.Module:
        return nn.Sequential(
            *(self.agent.policy.get_submodule(name) for name in ("mlp_extractor.policy_net", "action_net"))
        )


def check_warmup(config: RunConfig, episodes: int) -> None:
    """Refuses a warm-up that leaves the agent no episode.

    Args:
        config: The run's settings.
        episodes: Number of episodes after probes and demonstrations.

    Raises:
        ConfigError: If the warm-up takes all episodes.
    """
    warmup = config.agent.with_preset().warmup_episodes
    if warmup is not None and warmup >= episodes:
        raise ConfigError(
            f"agent.warmup_episodes: {warmup} given, but only {episodes} episodes are left after probes and "
            f"demonstrations, so the agent would never act. Give at most {episodes - 1}, or raise search.evaluations."
        )


def _networks(settings: AgentSection) -> dict[str, Any]:
    return {"net_arch": list(settings.hidden), "activation_fn": nn.ReLU}
