"""DDPG (Lillicrap et al., 2016) from Stable-Baselines3, with the reward of a plan shared among the episode's steps.

AMC (He et al., ECCV 2018) gives the finished plan's reward to every step, so the critic learns one step's value under
the noise of all other steps. Here the critic's values of an episode's steps add up to the episode's reward [our choice;
value decomposition, Sunehag et al., 2018, over steps instead of agents]. Each value is a function of the unit and the
action alone. The actor also imitates the best plan so far, with a weight that falls to 0 [our choice; after
self-imitation learning, Oh et al., 2018].
"""

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
from prune_env.agents.updates import Chain, FusedAdam, squares_gradient
from prune_env.config.agent import AgentSection
from prune_env.env.observation import STATIC, FloatArray

ONE = torch.ones(())


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
        with torch.no_grad():
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
            mean = self._acting.forward(torch.as_tensor(self._last_obs))[-1].detach().numpy()
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
        with torch.no_grad():
            self._update(gradient_steps)

    def _update(self, gradient_steps: int) -> None:
        observations, actions, scores = self._episodes()
        static = observations.clone()
        static[..., len(STATIC) :] = 0.0
        best = int(scores.argmax())
        act, value = self._acting, Chain(self.critic.q_networks[0])
        act_step, value_step = FusedAdam(self.actor.optimizer), FusedAdam(self.critic.optimizer)
        weight = torch.tensor(self.imitation * max(0.0, 1.0 - self._episode_num / self.episodes))
        imitated = bool(weight)
        shown, shown_actions = observations[best], actions[best]
        losses = []
        for _ in range(gradient_steps):
            drawn = torch.from_numpy(self.generator.integers(len(scores), size=min(len(scores), self.decomposed)))
            features, rows = static[drawn].flatten(0, 1), len(drawn) * self.steps
            wanted = scores[drawn]
            found = value.forward(torch.cat([features, actions[drawn].flatten(0, 1)], dim=-1))
            sums = found[-1].view(len(drawn), self.steps).sum(dim=1)
            fitted = squares_gradient(sums, wanted, ONE)[:, None].expand(-1, self.steps).reshape(rows, 1)
            critic_loss = F.mse_loss(sums, wanted)
            value_step.step(value.gradients(found, fitted))
            acted = act.forward(observations[drawn].flatten(0, 1))
            valued = value.forward(torch.cat([features, acted[-1]], dim=-1))
            actor_loss = -valued[-1].mean()
            raised = value.input_gradient(valued, (-ONE / rows).expand(rows, 1))[:, features.shape[1] :]
            gradients = act.gradients(acted, raised)
            if imitated:
                copied = act.forward(shown)
                actor_loss = actor_loss + weight * F.mse_loss(copied[-1], shown_actions)
                held = act.gradients(copied, squares_gradient(copied[-1], shown_actions, weight))
                gradients = [one + other for one, other in zip(gradients, held, strict=True)]
            act_step.step(gradients)
            losses.append((actor_loss, critic_loss))
        self._n_updates += gradient_steps
        means = torch.tensor(losses).mean(dim=0)
        self.logger.record("train/actor_loss", float(means[0]))
        self.logger.record("train/critic_loss", float(means[1]))

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
