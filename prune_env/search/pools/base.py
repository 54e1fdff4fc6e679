"""What a pool is: orders go in by number, measurements come out in any order."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prune_env.env.proposal import Proposal
from prune_env.env.trial import Measured
from prune_env.evaluation.racing import Bound


@dataclass(frozen=True, eq=False)
class Order:
    """One plan to measure.

    Attributes:
        number: The number of the trial.
        proposal: The proposal, from which a worker makes the plan.
        stop_early: When to stop the measurement; fixed when the plan was proposed. None for never.
    """

    number: int
    proposal: Proposal
    stop_early: Bound | None = None

    def to_send(self) -> "Order":
        """The order in few bytes."""
        return Order(self.number, self.proposal.to_send(), self.stop_early)


@dataclass(frozen=True)
class Arrival:
    """The result of one order.

    Attributes:
        number: The number of the order.
        result: The measurement, or the error of the plan: raised when the plan's turn comes.
    """

    number: int
    result: Measured | Exception


class Pool(ABC):
    """Measures plans. A pool never decides what is measured nor in which order results are used."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many plans can be measured at once, 1 or more."""

    @abstractmethod
    def submit(self, order: Order) -> None:
        """Takes an order; returns at once."""

    @abstractmethod
    def wait(self) -> Arrival:
        """Waits for the next result, of any order.

        Raises:
            RunError: If workers keep failing.
        """

    def status(self) -> Mapping[str, float]:
        """Numbers about the workers to show, by name, such as ``workers`` and ``asked_again``."""
        return {}

    def close(self) -> None:  # noqa: B027  (most pools hold nothing)
        """Ends the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
