"""Exploration: Gaussian noise truncated to the action's bounds, weaker with every episode (AMC, ECCV 2018).

Clipping instead of truncating would pile up actions on the bounds, where DDPG's actor then saturates.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from prune_env.env.observation import FloatArray


@dataclass(frozen=True)
class NoiseSchedule:
    """How strong the noise is in each episode.

    Attributes:
        start: Standard deviation in the first episode after the warm-up, in actions of [0, 1].
        decay: Factor per episode after that.
        floor: Least standard deviation.
        warmup: Episodes of uniform random actions before.
    """

    start: float
    decay: float
    floor: float
    warmup: int

    def sigma(self, episode: int) -> float:
        """The standard deviation in an episode (from 0), in actions of [0, 1]."""
        return max(self.floor, self.start * self.decay ** max(0, episode - self.warmup))


def truncated_normal(mean: FloatArray, sigma: float, generator: np.random.Generator) -> FloatArray:
    """Draws from normal distributions truncated to [-1, 1], by inverting the distribution function.

    Args:
        mean: Means in [-1, 1], any shape.
        sigma: Standard deviation before truncation, in actions of [-1, 1].
        generator: Where the randomness comes from.

    Returns:
        Samples of the same shape in [-1, 1], float32; the means where sigma is 0.
    """
    if sigma <= 0.0:
        return mean.astype(np.float32)
    low, high = ndtr((-1.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    draws = mean + sigma * ndtri(low + generator.random(mean.shape) * (high - low))
    return np.asarray(np.clip(draws, -1.0, 1.0), dtype=np.float32)
