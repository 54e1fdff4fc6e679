"""Exploration: Gaussian noise truncated to the action's bounds, which decays with every episode (AMC, ECCV 2018).

Clipping instead of truncating would pile up actions on the bounds, where DDPG's actor then saturates.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from prune_env.env.observation import FloatArray


@dataclass(frozen=True)
class NoiseSchedule:
    """Standard deviation of the noise by episode, for actions in [0, 1].

    Attributes:
        start: Standard deviation in the first episode after the warm-up.
        decay: Factor per later episode.
        floor: Least standard deviation.
        warmup: Episodes before the agent acts: demonstrations and uniform random actions.
    """

    start: float
    decay: float
    floor: float
    warmup: int

    def sigma(self, episode: int) -> float:
        """The standard deviation in an episode (from 0), for actions in [0, 1]."""
        return max(self.floor, self.start * self.decay ** max(0, episode - self.warmup))


def truncated_normal(mean: FloatArray, sigma: float, generator: np.random.Generator) -> FloatArray:
    """Draws from normal distributions truncated to [-1, 1], by inverting the distribution function.

    `scipy.stats.truncnorm` draws from the same distributions, but much more slowly, and every step draws an action.

    Args:
        mean: Means in [-1, 1], any shape.
        sigma: Standard deviation before truncation, for actions in [-1, 1].
        generator: Source of randomness.

    Returns:
        Samples in [-1, 1], float32, in the shape of the means; the means themselves if sigma is 0.
    """
    if sigma <= 0.0:
        return mean.astype(np.float32)
    low, high = ndtr((-1.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    draws = mean + sigma * ndtri(low + generator.random(mean.shape) * (high - low))
    return np.asarray(np.clip(draws, -1.0, 1.0), dtype=np.float32)
