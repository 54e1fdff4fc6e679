"""The registry of penalties, what a penalty is made from, and what it does."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from prune_env.common.registry import Registry
from prune_env.config.training import SparsifySection
from prune_env.walk import LayerWalk


@dataclass(frozen=True)
class PenaltyContext:
    """Inputs of a penalty before a sparse training.

    Attributes:
        settings: The section ``sparsify`` of a configuration.
        model: The dense network, on the CPU; not changed.
        images: One image or more, [N, C, H, W], on the CPU.
        untouched: Names of modules that the user protects.
        load: Gives `walk`; the network is traced only for a penalty that needs its units.
    """

    settings: SparsifySection
    model: nn.Module
    images: Tensor
    untouched: frozenset[str]
    load: Callable[[], LayerWalk]

    @cached_property
    def walk(self) -> LayerWalk:
        """The walk of the dense network; modules that the user protects are protected."""
        return self.load()


class Penalty(ABC):
    """A term in the loss that makes parts of a network small before a cut; a `prune_env.common.TrainingPart`.

    A training calls `network`, then the methods of a `TrainingPart`, and `finish` at its end. The default methods suit
    a penalty on the weights alone.

    Attributes:
        model: The network in training; set by `attach`.
    """

    model: nn.Module

    def network(self, model: nn.Module) -> nn.Module:
        """The network to train, with the penalty's own parameters and buffers; may change the given network.

        The result must depend on the given network alone: a resumed training calls this again.
        """
        return model

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:  # noqa: ARG002
        """Takes the network in training, the moving average of its weights, and a mean over processes."""
        self.model = model

    def progress(self, share: float) -> None:  # noqa: B027
        """Prepares the next step, given the completed share of the training, in [0, 1]."""

    def resume(self, share: float) -> None:  # noqa: B027
        """Continues from a loaded checkpoint, given the completed share of the training, in [0, 1]."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """The term to add to the loss, a scalar."""

    def finish(self, trained: nn.Module) -> nn.Module:
        """The plain network with the same outputs, without the penalty's own parts; may change the given network."""
        return trained

    def record(self, trained: nn.Module) -> dict[str, Any]:  # noqa: ARG002
        """What the penalty did, as JSON data for ``summary.json``.

        Sentences under ``warnings`` are shown to the user.

        Args:
            trained: The trained network, before `finish`.
        """
        return {}


PenaltyMaker = Callable[[PenaltyContext], Penalty]
"""Makes a penalty for one network."""

PENALTIES: Registry[PenaltyMaker] = Registry("penalty", "sparsify.penalty")


def register_penalty(name: str) -> Callable[[PenaltyMaker], PenaltyMaker]:
    """Registers a penalty under a name.

    Args:
        name: The value of ``sparsify.penalty``.

    Returns:
        A decorator that returns the class, or another callable of a `PenaltyContext`, unchanged.

    Raises:
        ValueError: If the name is taken.
    """
    return PENALTIES.register(name)
