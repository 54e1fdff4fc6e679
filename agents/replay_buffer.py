"""Replay with hindsight: every transition of an episode carries the reward of the finished plan (AMC, ECCV 2018)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


class EpisodeReplayBuffer(ReplayBuffer):
    """A replay buffer that gives an episode's final reward to all of its transitions.

    `sample` subtracts a moving average of the batch means from the rewards, which keeps the critic's targets centred.

    Args:
        baseline_momentum: Weight of a batch's mean in the moving average, in [0, 1]; 0 leaves rewards unchanged.
    """

    def __init__(self, *args: Any, baseline_momentum: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.baseline_momentum = baseline_momentum
        self.baseline: float | None = None
        self._open: list[int] = []
        # Writing makes the operating system reserve all memory now, not bit by bit during a long search.
        for array in (self.observations, self.next_observations, self.actions, self.rewards, self.dones):
            array.fill(0)

    def add(
        self,
        obs: npt.NDArray[Any],
        next_obs: npt.NDArray[Any],
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Stores a transition; the last transition of an episode overwrites the rewards of the earlier ones."""
        self._open.append(self.pos)
        super().add(obs, next_obs, action, reward, done, infos)
        if done[0]:
            self.rewards[self._open] = reward
            self._open.clear()

    def add_episode(self, observations: npt.NDArray[Any], actions: npt.NDArray[Any], reward: np.float32) -> None:
        """Stores a finished episode at once; as if its transitions were added one by one.

        Args:
            observations: float32 [steps + 1, features]; the last one follows the last action.
            actions: [steps, numbers].
            reward: The finished episode's reward.
        """
        steps = len(actions)
        places = self.places_of_next(steps)
        self.observations[places, 0] = observations[:-1]
        self.next_observations[places, 0] = observations[1:]
        self.actions[places, 0] = actions
        self.rewards[places, 0] = reward
        self.dones[places, 0] = np.arange(steps) == steps - 1
        self.full = self.full or self.pos + steps >= self.buffer_size
        self.pos = (self.pos + steps) % self.buffer_size

    def places_of_next(self, steps: int) -> npt.NDArray[np.int64]:
        """Where `add_episode` will store the next episode of this many steps."""
        return (self.pos + np.arange(steps)) % self.buffer_size

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Samples a batch, updates the moving average, and subtracts the average from the rewards."""
        batch = super().sample(batch_size, env)
        if self.baseline_momentum:
            mean = float(batch.rewards.mean())
            before = mean if self.baseline is None else self.baseline
            self.baseline = before + self.baseline_momentum * (mean - before)
            batch = batch._replace(rewards=batch.rewards - self.baseline)
        return batch
