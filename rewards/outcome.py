"""Outcome: the measurements of one network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The measurements of one network, dense or pruned.

    Attributes:
        quality: The task's quality on the reward set, in [0, 1], higher is better (for classification, the accuracy).
        loss: The task's mean loss on the reward set, >= 0.
        macs: Multiply-adds of the conv and linear layers for one image, counted once, >= 1.
        params: Number of parameters, >= 1.
        latency: Seconds for one forward pass; None if not measured.
        images: Number of images behind quality and loss, if the evaluation stopped early because another network is
            better; None if the whole reward set was evaluated.
    """

    quality: float
    loss: float
    macs: int
    params: int
    latency: float | None = None
    images: int | None = None

    @property
    def accuracy(self) -> float:
        """The quality, under its name in classification."""
        return self.quality

    @property
    def complete(self) -> bool:
        """Whether the whole reward set was evaluated."""
        return self.images is None
