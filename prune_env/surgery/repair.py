"""Repairs: how the layers that read cut channels make up for what they no longer see."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from prune_env.common.arrays import IntArray

Sides = Mapping[str, IntArray]
"""For each side of one module that is cut, the channels that stay."""


class Repair(Protocol):
    """Gives layers of a cut network other weights than those that slicing leaves."""

    def tensors(self, name: str, sides: Sides) -> Mapping[str, Tensor]:
        """The tensors that a cut layer gets instead of the sliced ones, by name.

        Args:
            name: The layer's dotted name.
            sides: The channels that stay, for each side that is cut.
        """
        ...
