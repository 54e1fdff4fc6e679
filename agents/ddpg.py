"""DDPG (Lillicrap et al., 2016) on Stable-Baselines3's, with the credit for a plan shared among its steps.

AMC (He et al., ECCV 2018) gives the finished plan's reward to every step, so that a step's critic must see through the
noise of all the others. Here the critic's values of an episode's steps add up to its reward [our choice; value
decomposition, Sunehag et al., 2018, over steps instead of agents], each a function of the unit and the action alone.
The actor also imitates the best plan so far, ever less [our choice; after self-imitation learning, Oh et al., 2018].
"""

from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.noise import ActionNoise
from torch import Tensor, nn

from agents.demonstrations import Demonstrations
from agents.exploration import NoiseSchedule, truncated_normal
from agents.replay_buffer import EpisodeReplayBuffer
from prune_env.config.agent import AgentSection
from prune_env.env.observation import STATIC, FloatArray


class PruningTD3(TD3):
    """TD3 (Fujimoto et al., 2018) with truncated, decaying exploration, demonstrations, and separate learning rates.

    Args:
        noise: How strong the exploration is by episode.
        rates: Learning rates of actor and critic.
        demonstrations: What it is shown first; None for nothing.
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
        """The exploration's standard deviation in this episode, in actions of [0, 1]."""
        return self.noise.sigma(self._episode_num)

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
        shown = self.demonstrations.action(self._episode_num) if self.demonstrations is not None else None
        if shown is not None:
            action = shown[None]
        elif not self.acting:
            shape = (n_envs, *self.action_space.shape)  # type: ignore[misc]
            action = self.generator.uniform(-1.0, 1.0, shape).astype(np.float32)
        else:
            assert self._last_obs is not None
            with torch.no_grad():
                mean = self.actor(torch.as_tensor(self._last_obs)).numpy()
            action = truncated_normal(mean, 2.0 * self.sigma, self.generator)
        return action, action

    def _update_learning_rate(self, optimizers: Any) -> None:  # noqa: ARG002
        for optimizer, rate in zip((self.actor.optimizer, self.critic.optimizer), self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate


class PruningDDPG(PruningTD3, DDPG):
    """DDPG, exploring as `PruningTD3`, with the credit for a plan shared among its steps.

    Args:
        steps: Steps of an episode.
        decomposed: Episodes that an update looks at, whose steps share the reward; 0 gives every step the whole of it.
        imitation: Weight of the squared distance from the best episode's actions in the actor's loss, at first; it
            falls to nothing by the last episode.
        episodes: How many episodes there will be.
        kwargs: As `PruningTD3`.
    """

    def __init__(self, *args: Any, steps: int, decomposed: int, imitation: float, episodes: int, **kwargs: Any) -> None:
        self.steps = steps
        self.decomposed = decomposed
        self.imitation = imitation
        self.episodes = episodes
        super().__init__(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Learns from the episodes so far.

        With decomposed credit, the critic's values of each sampled episode's steps are made to add up to the episode's
        reward, as a normal score of its rank among all; they see what stays the same of a unit and its action, and not
        what earlier actions left, or they would credit a step with what those did. The actor climbs each step's value,
        and is held to the actions of the best episode that the buffer holds, ever less.
        """
        if not self.decomposed:
            super().train(gradient_steps, batch_size)
            return
        self._update_learning_rate(None)
        observations, actions, scores = self._episodes()
        units = observations.clone()
        units[..., len(STATIC) :] = 0.0
        best = int(scores.argmax())
        act, value = self.actor.mu, self.critic.q_networks[0]
        actor, critic = list(self.actor.parameters()), list(self.critic.parameters())
        held = self.imitation * max(0.0, 1.0 - self._episode_num / self.episodes)
        losses = []
        for _ in range(gradient_steps):
            drawn = torch.from_numpy(self.generator.integers(len(scores), size=min(len(scores), self.decomposed)))
            known = units[drawn]
            shares = value(torch.cat([known, actions[drawn]], dim=-1)).squeeze(-1)
            critic_loss = F.mse_loss(shares.sum(dim=1), scores[drawn])
            _descend(self.critic.optimizer, critic, critic_loss)
            actor_loss = -value(torch.cat([known, act(observations[drawn])], dim=-1)).mean()
            if held:
                actor_loss = actor_loss + held * F.mse_loss(act(observations[best]), actions[best])
            _descend(self.actor.optimizer, actor, actor_loss)
            losses.append((actor_loss.detach(), critic_loss.detach()))
        self._n_updates += gradient_steps
        means = torch.tensor(losses).mean(dim=0)
        self.logger.record("train/actor_loss", float(means[0]))
        self.logger.record("train/critic_loss", float(means[1]))

    def _episodes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Observations [E, steps, features], actions [E, steps, numbers] and normal scores of the rewards [E]."""
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


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], loss: Tensor) -> None:
    """One step of an optimiser, with gradients of its own parameters only."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


def make_ddpg(
    env: gymnasium.Env[FloatArray, FloatArray],
    settings: AgentSection,
    steps: int,
    episodes: int,
    seed: int,
    demonstrations: Demonstrations | None = None,
) -> PruningDDPG:
    """Sets up the agent for a number of episodes.

    Args:
        env: The environment.
        settings: The agent's section, its preset filled in.
        steps: How many steps an episode has.
        episodes: How many episodes the search has; sets the default warm-up.
        seed: For weights, exploration and replay.
        demonstrations: What the agent is shown first; None for nothing.
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
    """Sets up TD3; as `make_ddpg`, except that no credit is shared."""
    return PruningTD3("MlpPolicy", env, **_arguments(settings, steps, episodes, demonstrations), seed=seed)


def _arguments(
    settings: AgentSection, steps: int, episodes: int, demonstrations: Demonstrations | None
) -> dict[str, Any]:
    """What DDPG and TD3 are both made with."""
    shown = len(demonstrations) if demonstrations is not None else 0
    warmup = settings.warmup_episodes
    if warmup is None:
        warmup = 0 if shown else max(1, episodes // 10)
    before = shown + warmup
    return {
        "learning_rate": settings.critic_learning_rate,
        "buffer_size": min(settings.buffer_episodes, max(1, episodes)) * steps,
        # From what it is shown it learns at once, so that its first own episode is not an untrained actor's.
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
        # The networks are tiny: a second thread costs more than it brings, and a GPU far more.
        "device": "cpu",
    }
