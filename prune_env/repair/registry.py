"""The registry of repairs, and the inputs from which a repair is made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from prune_env.common.registry import Registry
from prune_env.config.sections import RepairSection
from prune_env.criteria import ScoringContext
from prune_env.surgery import Repair


@dataclass(frozen=True)
class RepairContext:
    """Inputs of a repair before a search.

    Attributes:
        settings: The repair's section of a configuration.
        readers: The layers that may lose inputs, by module name.
        load: Gives `scoring`; images are read only for a repair that looks at them.
    """

    settings: RepairSection
    readers: tuple[str, ...]
    load: Callable[[], ScoringContext]

    @cached_property
    def scoring(self) -> ScoringContext:
        """The walk of the dense network, and calibration images."""
        return self.load()


RepairMaker = Callable[[RepairContext], Repair | None]
"""Makes a repair for one network; None leaves the layers of a cut network as slicing leaves them."""

REPAIRS: Registry[RepairMaker] = Registry("repair", "repair.name")


def register_repair(name: str) -> Callable[[RepairMaker], RepairMaker]:
    """Registers a repair under a name.

    Args:
        name: The value of ``repair.name``.

    Returns:
        A decorator that returns the callable of a `RepairContext` unchanged.

    Raises:
        ValueError: If the name is taken.
    """
    return REPAIRS.register(name)
