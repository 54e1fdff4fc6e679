"""Reinforcement learners as searches: DDPG and its relatives from Stable-Baselines3, on the problem's environment."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from agents.ddpg import PruningTD3, make_ddpg, make_td3
from agents.demonstrations import Demonstrations, demonstration_count
from agents.replay_buffer import EpisodeReplayBuffer
from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig
from prune_env.config.agent import AgentSection
from prune_env.env import PruningEnv
from prune_env.env.problem import PruningProblem
from prune_env.search.base import HasBudget, Search
from prune_env.search.policy import Policy, policy_of
from prune_env.search.registry import register_search

PPO_EPISODES = 8
"""Episodes that PPO collects between two updates [our choice]."""


class Learner(Search):
    """A reinforcement learner that decides unit after unit; one episode is one trial.

    Attributes:
        learns_each_episode: Whether the agent learns after every episode, rather than after several.
    """

    probes = True
    learns_each_episode: ClassVar[bool] = True

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self.steps = len(problem.budget.units)
        self.evaluations = config.search.evaluations
        self.episodes = self.evaluations - problem.probes
        self.env = PruningEnv(problem=problem, action=config.granularity.action, proposed_by=config.agent.name)
        self.agent = self._make(self.env, config.agent.with_preset(), config.seed)

    @abstractmethod
    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> BaseAlgorithm:
        """Builds the untrained agent."""

    def run(self, has_budget: HasBudget) -> None:
        """Trains the agent, episode after episode, until the budget is spent."""
        # Only an upper bound: the callback ends the training. Probes use up evaluations unless they were made before.
        self.agent.learn(self.evaluations * self.steps, callback=_StopWithoutBudget(has_budget), log_interval=None)  # type: ignore[arg-type]

    @property
    def policy(self) -> Policy:
        """The current deterministic policy."""
        return policy_of(self.agent.policy.get_submodule("actor.mu"), self.env)

    @property
    def scalars(self) -> Mapping[str, float]:
        """Mean losses of the last updates."""
        # Stable-Baselines3 creates the logger in `learn`.
        losses = self.agent.logger.name_to_value if hasattr(self.agent, "_logger") else {}
        return {
            f"agent/{name}": losses[f"train/{name}"]
            for name in ("actor_loss", "critic_loss")
            if f"train/{name}" in losses
        }


class _StopWithoutBudget(BaseCallback):
    def __init__(self, has_budget: HasBudget) -> None:
        super().__init__()
        self.has_budget = has_budget

    def _on_step(self) -> bool:
        return self.has_budget()


class _DemonstratedLearner(Learner):
    """A learner that explores with noise and starts with demonstrations."""

    agent: PruningTD3

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:
        """Refuses a warm-up that leaves the agent no episode after the demonstrations."""
        demonstrations = 0
        if config.agent.with_preset().demonstrations:
            granularity = problem.granularity.with_action(config.granularity.action)
            demonstrations = demonstration_count(problem, granularity, episodes)
        check_warmup(config, episodes - demonstrations)

    @property
    def scalars(self) -> Mapping[str, float]:
        """Standard deviation of the exploration once the agent acts, and mean losses of the last updates."""
        scalars = dict(super().scalars)
        if self.agent.acting:
            scalars["agent/sigma"] = self.agent.sigma
        return scalars


@register_search("ddpg")
class DdpgSearch(_DemonstratedLearner):
    """Our agent: DDPG with the reward of a plan shared among the episode's steps."""

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> PruningTD3:
        demonstrations = Demonstrations(env, self.episodes) if settings.demonstrations else None
        return make_ddpg(env, settings, self.steps, self.episodes, seed, demonstrations)


@register_search("td3")
class Td3Search(_DemonstratedLearner):
    """TD3 (twin critics); every step carries the whole plan's reward."""

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> PruningTD3:
        demonstrations = Demonstrations(env, self.episodes) if settings.demonstrations else None
        return make_td3(env, settings, self.steps, self.episodes, seed, demonstrations)


@register_search("sac")
class SacSearch(Learner):
    """SAC (Haarnoja et al., 2018) from Stable-Baselines3; every step carries the whole plan's reward."""

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a warm-up that leaves the agent no episode."""
        check_warmup(config, episodes)

    def _make(self, env: PruningEnv, settings: AgentSection, seed: int) -> SAC:
        warmup = settings.warmup_episodes
        return SAC(
            "MlpPolicy",
            env,
            learning_rate=settings.critic_learning_rate,
            buffer_size=min(settings.buffer_episodes, self.episodes) * self.steps,
            learning_starts=(max(1, self.episodes // 10) if warmup is None else warmup) * self.steps,
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

    @property
    def policy(self) -> Policy:
        """The current policy, which takes its most likely action."""
        layers = (self.agent.policy.get_submodule(f"actor.{name}") for name in ("latent_pi", "mu"))
        return policy_of(nn.Sequential(*layers), self.env)


@register_search("ppo")
class PpoSearch(Learner):
    """PPO (Schulman et al., 2017) from Stable-Baselines3; only the last step carries the reward, undiscounted."""

    learns_each_episode = False

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

    @property
    def policy(self) -> Policy:
        """The current policy, which takes its most likely action."""
        layers = (self.agent.policy.get_submodule(name) for name in ("mlp_extractor.policy_net", "action_net"))
        return policy_of(nn.Sequential(*layers), self.env, "clip")


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
