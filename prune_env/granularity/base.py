"""What a granularity is: it turns numbers that a search decides into widths and edits, within the budget.

A new granularity is a new file or folder here and its registration. The environment, the evaluator, plan files, policy
files, TensorBoard and the report know it through this protocol alone.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.common.errors import UserError
from prune_env.config.granularity import GRANULARITIES, GranularitySettings
from prune_env.criteria import ScoringContext
from prune_env.granularity.actions import KEEP, ActionDimension
from prune_env.granularity.builder import PlanBuilder
from prune_env.plan import PruningPlan
from prune_env.surgery import Repair
from prune_env.walk import LayerWalk, Scores

Numbers = npt.NDArray[np.float64]
"""What is decided of every free unit, [units, dimensions]."""

Series = Mapping[str, Mapping[str, float]]
"""Numbers to draw: by family (for example ``groups``), by layer."""


@dataclass(frozen=True)
class GranularityContext:
    """What a granularity may look at before a search.

    Attributes:
        scoring: The walk, the images and the seed, as criteria see them.
        scores: One score per channel of each unit.
        min_keep: Least keep ratio of a unit, in (0, 1].
        untouched: Modules that stay as they are although a unit that they touch is free.
        batch: Makes the batch that latency is of, [N, C, H, W], on the device and in the layout of the search.
        measured: What `Granularity.measurements` gave in an earlier part of the run; None where there is nothing.
        timed: Whether what is only shown of times is worth measuring.
        on_progress: Hears in words what is going on.
    """

    scoring: ScoringContext
    scores: Scores
    min_keep: float
    batch: Callable[[], Tensor]
    untouched: Collection[str] = ()
    measured: Mapping[str, Any] | None = None
    timed: bool = True
    on_progress: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class TextTable:
    """A table of texts, which `prune-env inspect` and the report show.

    Attributes:
        title: A few words.
        words: What the numbers are, in sentences.
        headings: Of the columns; the first names a layer.
        rows: Texts, as many as headings each.
    """

    title: str
    words: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)


class Trainable(Protocol):
    """What recovery trains beside weights, for example which inputs are read.

    A training calls `network`, then `attach`, then `progress` before and `penalty` in each step, and `finish` at its
    end. A training that goes on calls `resume` instead of starting over.
    """

    def network(self, plan: PruningPlan, model: nn.Module, repair: Repair | None) -> nn.Module:
        """The cut network with what is trained beside its weights still undecided."""
        ...

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Takes the network that is trained, the moving average of its weights, and a mean over processes."""
        ...

    def progress(self, share: float) -> None:
        """Makes ready for a step after a share of the training, in [0, 1]."""
        ...

    def resume(self, share: float) -> None:
        """Goes on after a share of the training with what the checkpoint held."""
        ...

    def penalty(self) -> Tensor:
        """What is added to the loss of the last batch, a scalar."""
        ...

    def finish(
        self, trained: nn.Module, plan: PruningPlan, walk: LayerWalk, multiple: int
    ) -> tuple[nn.Module, PruningPlan]:
        """The network with everything decided, and its plan; widths are multiples of ``multiple``."""
        ...


class Granularity(ABC):
    """One shape that can be cut. The defaults here are those of whole channels.

    Args:
        settings: The granularity's section of a configuration.

    Attributes:
        name: Under which it is registered.
        Settings: The class of its section.
        supports_latency: Whether a budget or reward of latency works with it.
        makes_edits: Whether its plans hold edits, so that a layer may read less of a unit that stays whole.
        measurements_file: The file of a run that keeps what was measured; None where nothing is.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[GranularitySettings]] = GranularitySettings
    supports_latency: ClassVar[bool] = True
    makes_edits: ClassVar[bool] = False
    measurements_file: ClassVar[str | None] = None

    def __init__(self, settings: GranularitySettings) -> None:
        self.settings = settings

    @property
    def action(self) -> str:
        """What an action means, one of `allowed_actions`."""
        return self.settings.action

    @classmethod
    def allowed_actions(cls) -> tuple[str, ...]:
        """The meanings that an action can have."""
        return get_args(cls.Settings.model_fields["action"].annotation)

    @classmethod
    def action_numbers(cls, action: str) -> int:  # noqa: ARG003
        """How many numbers an action of such a meaning has."""
        return 1

    def with_action(self, action: str) -> Self:
        """The same granularity, prepared as it is, with another meaning of actions.

        Raises:
            UserError: If there is no such action here.
        """
        if action not in self.allowed_actions():
            allowed = ", ".join(map(repr, self.allowed_actions()))
            raise UserError(f"action: {action!r} given; allowed with granularity.name={self.name} are {allowed}.")
        other = copy.copy(self)
        other.settings = self.settings.model_copy(update={"action": action})
        return other

    @abstractmethod
    def prepare(self, context: GranularityContext) -> Self:
        """The granularity made ready for one network: layers found, kernels scored, times measured."""

    @abstractmethod
    def builder(self, budget: Budget) -> PlanBuilder:
        """A plan in the making within a budget."""

    def actions(self) -> tuple[ActionDimension, ...]:
        """The numbers that an action decides of a unit."""
        return (KEEP[self.action],)

    def limits(self) -> Mapping[str, float]:
        """The settings that scale actions, by key; a policy file records them."""
        return {}

    def reachable(self, budget: Budget) -> tuple[float, float]:
        """The shares of the dense cost that plans can reach: least and most.

        Raises:
            BudgetError: If the budget is not among them.
        """
        return budget.reachable

    def demonstrations(self, rule_ratios: Sequence[Numbers], budget: Budget) -> list[Numbers]:  # noqa: ARG002
        """The decisions that an agent is shown first, made from the keep ratios of rules.

        Args:
            rule_ratios: Keep ratios of the rules' plans, [units] each.
            budget: The budget; every demonstration meets it.

        Returns:
            `demonstration_count` of them, [units, dimensions] each.
        """
        return [ratios[:, None] for ratios in rule_ratios]

    def demonstration_count(self, rules: int, budget: Budget) -> int:  # noqa: ARG002
        """How many demonstrations there are for so many rules."""
        return rules

    def record(self, plan: PruningPlan) -> dict[str, Any]:  # noqa: ARG002
        """What a line of ``evaluations.jsonl`` tells of a plan's edits; None for what is not there."""
        return {}

    def measurements(self) -> dict[str, Any] | None:
        """What was measured in `prepare`, as JSON can hold it; None for nothing."""
        return None

    def restore(self, measured: Mapping[str, Any]) -> Self:  # noqa: ARG002
        """The granularity with what a run has measured, for its report; not ready for a search."""
        return self

    def series(self, record: Mapping[str, Any]) -> Series:  # noqa: ARG002
        """What TensorBoard and the report draw of a line of ``evaluations.jsonl``."""
        return {}

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:  # noqa: ARG002
        """What `prune-env inspect` shows, or with a plan, what the report shows.

        Args:
            batch: Images in the batch that was timed.
            plan: The plan that a report is of.
        """
        return []

    def trainable(self, plan: PruningPlan) -> Trainable | None:  # noqa: ARG002
        """What recovery trains beside weights; None for nothing.

        Raises:
            ConfigError: If the settings ask for something that the plan cannot give.
        """
        return None


def register_granularity(granularity: type[Granularity]) -> type[Granularity]:
    """Makes a granularity known under its ``name``."""
    GRANULARITIES.add(granularity.name, granularity)
    return granularity


def make_granularity(settings: GranularitySettings) -> Granularity:
    """The granularity that a configuration names, not yet prepared.

    Raises:
        ConfigError: If there is none.
    """
    found: Granularity = GRANULARITIES.find(settings.name)(settings)
    return found
