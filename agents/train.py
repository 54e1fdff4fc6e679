"""The search: an agent learns on a task, and the best plan is handed out the moment it is found."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from stable_baselines3.common.callbacks import BaseCallback

from agents.ddpg import PruningDDPG, make_ddpg
from agents.demonstrations import Demonstrations
from agents.policy import Policy, policy_of
from prune_env.config import RunConfig
from prune_env.env import PruningEnv
from prune_env.errors import ConfigError, suggest
from prune_env.task import PruningTask, Trial


@dataclass(frozen=True)
class Episode:
    """What a listener hears after each episode.

    Attributes:
        number: From 0.
        of: How many episodes there will be.
        trial: The finished plan's trial.
        best: The best trial so far.
        sigma: The exploration's standard deviation, in actions of [0, 1]; None during the warm-up.
        actor_loss: Mean loss of the actor's updates after the episode before; None before any.
        critic_loss: Mean loss of the critic's.
        seconds: Wall-clock seconds since the search began.
    """

    number: int
    of: int
    trial: Trial
    best: Trial
    sigma: float | None
    actor_loss: float | None
    critic_loss: float | None
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The best trial.
        policy: The deterministic policy at the end.
        episodes: How many plans the agent proposed.
        seconds: Wall-clock seconds of the search.
    """

    best: Trial
    policy: Policy
    episodes: int
    seconds: float


Listener = Callable[[Episode, PruningDDPG], None]

AGENTS = ("ddpg",)


def train_agent(task: PruningTask, config: RunConfig, listeners: tuple[Listener, ...] = ()) -> SearchResult:
    """Trains the agent that the configuration names.

    Probes made for the evidence count as evaluations; the rest of ``search.evaluations`` are episodes.

    Args:
        task: The task.
        config: The run's settings.
        listeners: Called after each episode.

    Returns:
        The best trial and the policy.

    Raises:
        ConfigError: If there is no such agent, or the probes alone use up the evaluations.
    """
    episodes = count_episodes(task, config)
    env = PruningEnv(task=task, action=config.env.action)
    settings = config.agent.with_preset()
    started = time.perf_counter()
    steps = len(task.budget.units)
    demonstrations = Demonstrations(env, settings.demonstrations)
    agent = make_ddpg(env, settings, steps, episodes, config.seed, demonstrations)
    watcher = _Watcher(episodes, listeners, started)
    agent.learn(episodes * steps, callback=watcher, log_interval=None)  # type: ignore[arg-type]
    assert watcher.best is not None
    return SearchResult(
        watcher.best, policy_of(agent.actor, config.env.action), watcher.episodes, time.perf_counter() - started
    )


def check_agent(config: RunConfig) -> None:
    """Refuses an agent that does not exist, before any time is spent.

    Raises:
        ConfigError: If there is no such agent.
    """
    if config.agent.name not in AGENTS:
        offer = suggest(config.agent.name, AGENTS)
        raise ConfigError(f"agent.name: there is no agent {config.agent.name!r}; {offer}.")


def count_episodes(task: PruningTask, config: RunConfig) -> int:
    """How many episodes ``search.evaluations`` leave for the agent.

    Raises:
        ConfigError: If the probes alone use the evaluations up, or the warm-up leaves the agent nothing to learn in.
    """
    check_agent(config)
    episodes = config.search.evaluations - task.probes
    if episodes < 1:
        raise ConfigError(
            f"search.evaluations: {config.search.evaluations} given, but the evidence alone takes {task.probes}, one "
            "for each free unit. Give more, or set sensitivity.probe_keep to null."
        )
    warmup = config.agent.with_preset().warmup_episodes
    if warmup is not None and warmup >= episodes:
        raise ConfigError(
            f"agent.warmup_episodes: {warmup} given, but there are only {episodes} episodes, so that the agent would "
            "never act. Give fewer, or raise search.evaluations."
        )
    return episodes


class _Watcher(BaseCallback):
    """Keeps the best trial and tells the listeners after each episode."""

    def __init__(self, of: int, listeners: tuple[Listener, ...], started: float) -> None:
        super().__init__()
        self.of = of
        self.listeners = listeners
        self.started = started
        self.episodes = 0
        self.best: Trial | None = None

    def _on_step(self) -> bool:
        trial: Trial | None = self.locals["infos"][0].get("trial")
        if trial is None:
            return True
        if self.best is None or trial.reward > self.best.reward:
            self.best = trial
        agent = self.model
        assert isinstance(agent, PruningDDPG)
        warming = self.episodes < agent.noise.warmup
        losses = agent.logger.name_to_value
        episode = Episode(
            number=self.episodes,
            of=self.of,
            trial=trial,
            best=self.best,
            sigma=None if warming else agent.noise.sigma(self.episodes),
            actor_loss=losses.get("train/actor_loss"),
            critic_loss=losses.get("train/critic_loss"),
            seconds=time.perf_counter() - self.started,
        )
        self.episodes += 1
        for listener in self.listeners:
            listener(episode, agent)
        return True
