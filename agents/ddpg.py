"""DDPG (Lillicrap et al., 2016) from Stable-Baselines3, with the reward of a plan shared among the episode's steps.

AMC (He et al., ECCV 2018) gives the finished plan's reward to every step, so the critic learns one step's value under
the noise of all other steps. Here the critic's values of an episode's steps add up to the episode's reward [our choice;
value decomposition, Sunehag et al., 2018, over steps instead of agents]. Each value is a function of the unit and the
action alone. The actor also imitates the best plan so far, with a weight that falls to 0 [our choice; after
self-imitation learning, Oh et al., 2018].
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.noise import ActionNoise
from torch import Tensor, nn

from prune_env.agents.demonstrations import Demonstrations
from prune_env.agents.exploration import NoiseSchedule, truncated_normal
from prune_env.agents.replay_buffer import EpisodeReplayBuffer
from prune_env.agents.updates import Adam, Chain, Parameters, squares_gradient
from prune_env.config.agent import AgentSection
from prune_env.env.observation import STATIC, FloatArray

ONE = torch.ones(())


@dataclass(frozen=True)
class _Shown:
    """The best episode: observations [steps, features], actions [steps, numbers], and the weight of its imitation."""

    observations: Tensor
    actions: Tensor
    weight: Tensor


class PruningTD3(TD3):
    """TD3 (Fujimoto et al., 2018) with truncated, decaying exploration, demonstrations, and separate learning rates.

    Args:
        noise: Standard deviation of the exploration by episode.
        rates: Learning rates of actor and critic.
        demonstrations: Plans that the agent replays before it acts; None for none.
    """

    def __init__(
        self,
        *args: Any,
        noise: NoiseSchedule,
        rates: tuple[float, float],
        demonstrations: Demonstrations | None,
        **kwargs: Any,
    ) -> None:
        self.noise = noise
        self.rates = rates
        self.demonstrations = demonstrations
        super().__init__(*args, **kwargs)
        self.generator = np.random.default_rng(self.seed)

    @property
    def sigma(self) -> float:
        """Standard deviation of the exploration in the current episode, for actions in [0, 1]."""
        return self.noise.sigma(self._episode_num)

    @cached_property
    def _acting(self) -> Chain:
        return Chain(self.actor.mu)

    @property
    def acting(self) -> bool:
        """Whether demonstrations and warm-up are over."""
        return self._episode_num >= self.noise.warmup

    def _sample_action(
        self,
        learning_starts: int,  # noqa: ARG002
        action_noise: ActionNoise | None = None,  # noqa: ARG002
        n_envs: int = 1,
    ) -> tuple[FloatArray, FloatArray]:
        demonstrated = self.demonstrations.action(self._episode_num) if self.demonstrations is not None else None
        if demonstrated is not None:
            action = demonstrated[None]
        elif not self.acting:
            shape = (n_envs, *self.action_space.shape)  # type: ignore[misc]
            action = self.generator.uniform(-1.0, 1.0, shape).astype(np.float32)
        else:
            assert self._last_obs is not None
            # The actor's own call prepares images and dictionaries, too; these observations need nothing.
            mean = self._acting.forward(torch.as_tensor(self._last_obs))[-1].numpy()
            action = truncated_normal(mean, 2.0 * self.sigma, self.generator)
        return action, action

    def _update_learning_rate(self, optimizers: Any) -> None:  # noqa: ARG002
        for optimizer, rate in zip((self.actor.optimizer, self.critic.optimizer), self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate


class PruningDDPG(PruningTD3, DDPG):
    """DDPG with the exploration of `PruningTD3` and with the reward of a plan shared among the episode's steps.

    Args:
        steps: Steps per episode.
        decomposed: Episodes per update whose steps share the reward; 0 gives every step the whole reward.
        imitation: Initial weight, in the actor's loss, of the squared distance to the best episode's actions. The
            weight falls linearly to 0 over ``episodes``.
        episodes: Number of episodes in the search.
        kwargs: As `PruningTD3`.
    """

    def __init__(self, *args: Any, steps: int, decomposed: int, imitation: float, episodes: int, **kwargs: Any) -> None:
        self.steps = steps
        self.decomposed = decomposed
        self.imitation = imitation
        self.episodes = episodes
        super().__init__(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Updates actor and critic on the stored episodes.

        If steps share the reward, the critic's values of an episode's steps are fitted to add up to the normal score of
        the episode's reward: the normal quantile of the reward's rank among all stored episodes. The critic reads the
        action and the unit's static features. With the dynamic features, the critic would credit a step with the
        effects of earlier actions. The actor maximises each step's value. A decreasing weight pulls the actor towards
        the actions of the best stored episode.
        """
        if not self.decomposed:
            super().train(gradient_steps, batch_size)
            return
        self._update_learning_rate(None)
        self._update(gradient_steps)

    @cached_property
    def _valuing(self) -> Chain:
        return Chain(self.critic.q_networks[0])

    @cached_property
    def _optimisers(self) -> tuple[Adam, Adam]:
        return Adam(self._acting, self.actor.optimizer), Adam(self._valuing, self.critic.optimizer)

    @cached_property
    def _rooms(self) -> tuple[Parameters, Parameters, Parameters]:
        """Room for the gradients of the critic, of the actor, and of the actor's imitation."""
        return self._valuing.room(), self._acting.room(), self._acting.room()

    def _update(self, gradient_steps: int) -> None:
        observations, actions, scores = self._episodes()
        features, count = observations.shape[-1], min(len(scores), self.decomposed)
        valued = torch.cat([observations, actions], dim=-1)
        valued[..., len(STATIC) : features] = 0.0
        best = int(scores.argmax())
        weight = torch.tensor(self.imitation * max(0.0, 1.0 - self._episode_num / self.episodes))
        shown = _Shown(observations[best], actions[best], weight)
        drawn = torch.from_numpy(self.generator.integers(len(scores), size=(gradient_steps, count)))
        wanted, sums, values, copies = scores[drawn], [], [], []
        for number, episodes in enumerate(drawn):
            rows = valued.index_select(0, episodes).flatten(0, 1)
            sums.append(self._fit_critic(rows, wanted[number]))
            value, copied = self._raise_actor(observations.index_select(0, episodes).flatten(0, 1), rows, shown)
            values.append(value)
            copies.append(copied)
        self._n_updates += gradient_steps
        distance = F.mse_loss(torch.stack(copies), shown.actions.expand(gradient_steps, -1, -1))
        self.logger.record("train/actor_loss", float(weight * distance - torch.stack(values).mean()))
        self.logger.record("train/critic_loss", float(F.mse_loss(torch.stack(sums), wanted)))

    def _fit_critic(self, rows: Tensor, wanted: Tensor) -> Tensor:
        """Fits the sums of the steps' values to scores [episodes], one step of Adam; returns the sums before it."""
        critic, (_, adam) = self._valuing, self._optimisers
        found = critic.forward(rows)
        sums = found[-1].view(len(wanted), self.steps).sum(dim=1)
        gradient = squares_gradient(sums, wanted, ONE)[:, None].expand(-1, self.steps).reshape(-1, 1)
        adam.step(critic.gradients(found, gradient, self._rooms[0]))
        return sums

    def _raise_actor(self, observations: Tensor, rows: Tensor, shown: "_Shown") -> tuple[Tensor, Tensor]:
        """Raises the values of the actor's own actions, one step of Adam.

        Args:
            observations: [episodes * steps, features].
            rows: The critic's inputs of these steps [episodes * steps, features + numbers]; their actions are replaced.
            shown: The episode that the actor imitates.

        Returns:
            The values of the actions before the step, and the actor's actions in the shown episode.
        """
        actor, critic, (adam, _), (_, raising, copying) = self._acting, self._valuing, self._optimisers, self._rooms
        features = observations.shape[1]
        acted, copied = actor.forward(observations), actor.forward(shown.observations)
        rows[:, features:] = acted[-1]
        found = critic.forward(rows)
        upward = critic.input_gradient(found, (-ONE / len(rows)).expand(len(rows), 1))[:, features:]
        gradient = actor.gradients(acted, upward, raising)
        if shown.weight:
            gradient += actor.gradients(copied, squares_gradient(copied[-1], shown.actions, shown.weight), copying)
        adam.step(gradient)
        return found[-1], copied[-1]

    def _episodes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Stored observations [E, steps, features], actions [E, steps, numbers], normal scores of the rewards [E]."""
        buffer = self.replay_buffer
        assert buffer is not None
        count = (buffer.buffer_size if buffer.full else buffer.pos) // self.steps
        shape = (count, self.steps, -1)
        observations, actions, rewards = (
            torch.from_numpy(array[: count * self.steps, 0].reshape(shape))
            for array in (buffer.observations, buffer.actions, buffer.rewards)
        )
        ranks = torch.from_numpy(rankdata(rewards[:, -1, 0].numpy()))
        return observations, actions, torch.special.ndtri((ranks - 0.5) / count).float()


def make_ddpg(
    env: gymnasium.Env[FloatArray, FloatArray],
    settings: AgentSection,
    steps: int,
    episodes: int,
    seed: int,
    demonstrations: Demonstrations | None = None,
) -> PruningDDPG:
    """Builds the DDPG agent for a search.

    Args:
        env: The environment.
        settings: The agent's section, with the preset filled in.
        steps: Steps per episode.
        episodes: Number of episodes in the search; sets the default warm-up.
        seed: Seed of weights, exploration and replay.
        demonstrations: Plans that the agent replays before it acts; None for none.
    """
    return PruningDDPG(
        "MlpPolicy",
        env,
        steps=steps,
        decomposed=settings.decomposed_episodes,
        imitation=settings.imitation,
        episodes=episodes,
        **_arguments(settings, steps, episodes, demonstrations),
        seed=seed,
    )


def make_td3(
    env: gymnasium.Env[FloatArray, FloatArray],
    settings: AgentSection,
    steps: int,
    episodes: int,
    seed: int,
    demonstrations: Demonstrations | None = None,
) -> PruningTD3:
    """Builds the TD3 agent. Arguments as in `make_ddpg`; every step carries the whole reward."""
    return PruningTD3("MlpPolicy", env, **_arguments(settings, steps, episodes, demonstrations), seed=seed)


def _arguments(
    settings: AgentSection, steps: int, episodes: int, demonstrations: Demonstrations | None
) -> dict[str, Any]:
    """The constructor arguments that DDPG and TD3 have in common."""
    shown = len(demonstrations) if demonstrations is not None else 0
    warmup = settings.warmup_episodes
    if warmup is None:
        warmup = 0 if shown else max(1, episodes // 10)
    before = shown + warmup
    return {
        "learning_rate": settings.critic_learning_rate,
        "buffer_size": min(settings.buffer_episodes, max(1, episodes)) * steps,
        # Learn during the demonstrations, so that the actor is trained before its first own episode.
        "learning_starts": 0 if shown else before * steps,
        "batch_size": settings.batch_size,
        "tau": settings.tau,
        "gamma": settings.gamma,
        "train_freq": (1, "episode"),
        "gradient_steps": max(1, round(settings.updates_per_step * steps)),
        "replay_buffer_class": EpisodeReplayBuffer,
        "replay_buffer_kwargs": {
            "baseline_momentum": settings.baseline_momentum,
            "handle_timeout_termination": False,
        },
        "policy_kwargs": {
            "net_arch": list(settings.hidden),
            "activation_fn": nn.ReLU,
            "optimizer_kwargs": {"fused": True},
        },
        "noise": NoiseSchedule(settings.noise, settings.noise_decay, settings.noise_floor, before),
        "rates": (settings.actor_learning_rate, settings.critic_learning_rate),
        "demonstrations": demonstrations,
        # The networks are tiny: a second thread costs more time than it saves, a GPU even more.
        "device": "cpu",
    }
