"""DDPG as AMC uses it (He et al., ECCV 2018), on Stable-Baselines3's.

What differs from Stable-Baselines3's own: noise is truncated instead of clipped and falls by episode, actor and critic
learn at their own rates, and the replay buffer gives the finished plan's reward to every step of its episode.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3 import DDPG
from stable_baselines3.common.noise import ActionNoise
from torch import Tensor, nn

from agents.exploration import NoiseSchedule, truncated_normal
from agents.replay import EpisodeReplayBuffer
from prune_env.config_agent import AgentSection
from prune_env.observation import FloatArray


class PruningDDPG(DDPG):
    """DDPG with truncated, decaying exploration and separate learning rates.

    Args:
        noise: How strong the exploration is by episode.
        rates: Learning rates of actor and critic.
    """

    def __init__(self, *args: Any, noise: NoiseSchedule, rates: tuple[float, float], **kwargs: Any) -> None:
        self.noise = noise
        self.rates = rates
        super().__init__(*args, **kwargs)
        self.generator = np.random.default_rng(self.seed)

    @property
    def sigma(self) -> float:
        """The exploration's standard deviation in this episode, in actions of [0, 1]."""
        return self.noise.sigma(self._episode_num)

    def _sample_action(
        self,
        learning_starts: int,
        action_noise: ActionNoise | None = None,  # noqa: ARG002
        n_envs: int = 1,
    ) -> tuple[FloatArray, FloatArray]:
        if self.num_timesteps < learning_starts:
            action = self.generator.uniform(-1.0, 1.0, (n_envs, 1)).astype(np.float32)
            return action, action
        assert self._last_obs is not None
        with torch.no_grad():
            mean = self.actor(torch.as_tensor(self._last_obs)).numpy()
        action = truncated_normal(mean, 2.0 * self.sigma, self.generator)
        return action, action

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """The updates of `stable_baselines3.TD3.train`, for one critic, without what an agent this small waits for.

        The same losses and steps, but: no targets where gamma is 0 and nothing bootstraps, no gradients of the critic
        while the actor learns, and one fused call for each optimiser and for the targets.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(None)
        assert self.replay_buffer is not None
        actor, critic = _tensors(self.actor), _tensors(self.critic)
        pairs = ((actor, _tensors(self.actor_target)), (critic, _tensors(self.critic_target)))
        act, value = self.actor.mu, self.critic.q_networks[0]
        losses = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size)
            goal = batch.rewards
            if self.gamma:
                with torch.no_grad():
                    following = self.critic_target.q1_forward(
                        batch.next_observations, self.actor_target(batch.next_observations)
                    )
                    goal = goal + (1 - batch.dones) * self.gamma * following
            critic_loss = F.mse_loss(value(torch.cat([batch.observations, batch.actions], dim=1)), goal)
            _descend(self.critic.optimizer, critic, critic_loss)
            actor_loss = -value(torch.cat([batch.observations, act(batch.observations)], dim=1)).mean()
            _descend(self.actor.optimizer, actor, actor_loss)
            with torch.no_grad():
                for online, target in pairs:
                    torch._foreach_lerp_(target, online, self.tau)
            losses.append((actor_loss.detach(), critic_loss.detach()))
        self._n_updates += gradient_steps
        means = torch.tensor(losses).mean(dim=0)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/actor_loss", float(means[0]))
        self.logger.record("train/critic_loss", float(means[1]))

    def _update_learning_rate(self, optimizers: Any) -> None:  # noqa: ARG002
        for optimizer, rate in zip((self.actor.optimizer, self.critic.optimizer), self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.parameters())


def _descend(optimizer: torch.optim.Optimizer, parameters: list[Tensor], loss: Tensor) -> None:
    """One step of an optimiser, with gradients of its own parameters only."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


def make_ddpg(
    env: gymnasium.Env[FloatArray, FloatArray], settings: AgentSection, steps: int, episodes: int, seed: int
) -> PruningDDPG:
    """Sets up the agent for a number of episodes.

    Args:
        env: The environment.
        settings: The agent's section, its preset filled in.
        steps: How many steps an episode has.
        episodes: How many episodes the search has; sets the default warm-up.
        seed: For weights, exploration and replay.
    """
    warmup = settings.warmup_episodes if settings.warmup_episodes is not None else max(1, episodes // 10)
    # The networks are tiny: a second thread costs more than it brings, and a GPU far more.
    return PruningDDPG(
        "MlpPolicy",
        env,
        learning_rate=settings.critic_learning_rate,
        buffer_size=settings.buffer_episodes * steps,
        learning_starts=warmup * steps,
        batch_size=settings.batch_size,
        tau=settings.tau,
        gamma=settings.gamma,
        train_freq=(1, "episode"),
        gradient_steps=max(1, round(settings.updates_per_step * steps)),
        replay_buffer_class=EpisodeReplayBuffer,
        replay_buffer_kwargs={"baseline_momentum": settings.baseline_momentum, "handle_timeout_termination": False},
        policy_kwargs={
            "net_arch": list(settings.hidden),
            "activation_fn": nn.ReLU,
            "optimizer_kwargs": {"fused": True},
        },
        noise=NoiseSchedule(settings.noise, settings.noise_decay, settings.noise_floor, warmup),
        rates=(settings.actor_learning_rate, settings.critic_learning_rate),
        device="cpu",
        seed=seed,
    )
