"""Compares two networks image by image, which needs fewer images than to compare two shares."""

from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

from scipy.special import bdtr
from torch import Tensor

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Pairs:
    """Two networks on the same images.

    Attributes:
        won: Images that the first network alone gets right.
        lost: Images that the second network alone gets right.
        images: Number of images.
    """

    won: int
    lost: int
    images: int

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> "Pairs":
        """Counts the images on which two networks differ, from which images each gets right, bool [images]."""
        return cls(int((first & ~second).sum()), int((second & ~first).sum()), len(first))

    @property
    def difference(self) -> float:
        """Quality of the first network less that of the second, in [-1, 1]."""
        return (self.won - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference over images (Bonett and Price, 2012: Wald's, with one image more)."""
        won, lost = ((count + 1) / (self.images + 2) for count in (self.won, self.lost))
        middle = won - lost
        reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * sqrt((won + lost - middle**2) / (self.images + 2))
        return max(-1.0, middle - reach), min(1.0, middle + reach)

    @property
    def p_value(self) -> float:
        """McNemar's mid-p: how probable so uneven a count is if each image is as likely won as lost, two-sided."""
        fewer, differing = min(self.won, self.lost), self.won + self.lost
        return float(min(1.0, 2 * bdtr(fewer, differing, 0.5) - comb(differing, fewer) / 2**differing))
