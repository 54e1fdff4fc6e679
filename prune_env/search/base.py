"""What a search is: whatever proposes plans for a task, one trial after the other."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from prune_env.config import RunConfig
from prune_env.env.problem import PruningTask
from prune_env.search.policy import Policy

More = Callable[[], bool]
"""Whether another trial may be made."""


class Search(Protocol):
    """Proposes plans and learns from what they turn out to be worth.

    A search is made of a task and a configuration. It is a function of these and of the outcomes that it sees: an
    interrupted one is taken up by showing it the same outcomes again.

    Attributes:
        probes: Whether it looks at how far the loss rises with each unit; one trial a unit.
    """

    probes: ClassVar[bool]

    def __init__(self, task: PruningTask, config: RunConfig) -> None: ...

    def run(self, more: More) -> None:
        """Tries plans by `PruningTask.attempt`, under its configured name, until there are no ``more`` or it is done.

        Args:
            more: Asked before each trial after the probes.
        """
        ...

    @property
    def policy(self) -> Policy | None:
        """The policy learned so far; None for a search that learns none that can be replayed."""
        ...

    @property
    def scalars(self) -> Mapping[str, float]:
        """What is worth a curve besides the plans: exploration, losses; by TensorBoard tag."""
        ...
