"""What one plan does to a network, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What was measured on one network, dense or pruned.

    Attributes:
        quality: How good the network is on the reward set, in [0, 1], higher is better; what it is, the task says (of a
            classifier the accuracy).
        loss: The task's mean loss on the reward set, >= 0.
        macs: Multiply-adds of the conv and linear layers for one image, counted once, >= 1.
        params: Number of parameters, >= 1.
        latency: Seconds for one forward pass, or None where it was not measured.
        images: How many images quality and loss are over, where that is a part of the reward set, enough to know that
            another network is better; None for all.
    """

    quality: float
    loss: float
    macs: int
    params: int
    latency: float | None = None
    images: int | None = None

    @property
    def accuracy(self) -> float:
        """The quality, by the name that it has in classification."""
        return self.quality

    @property
    def complete(self) -> bool:
        """Whether the whole reward set was looked at."""
        return self.images is None
