"""The granularity protocol: a granularity turns the numbers of a search into widths and edits within the budget.

A new granularity is a new file or folder here and its registration. The environment, the evaluator, plan files, policy
files, TensorBoard and the report use only this protocol.
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
from prune_env.common.records import Record
from prune_env.common.training_part import TrainingPart
from prune_env.config.granularity import GRANULARITIES, GranularitySettings
from prune_env.criteria import ScoringContext
from prune_env.granularity.actions import KEEP, ActionDimension
from prune_env.granularity.builder import PlanBuilder
from prune_env.plan import PruningPlan
from prune_env.surgery import Repair
from prune_env.walk import LayerWalk, Scores

Numbers = npt.NDArray[np.float64]
"""The decisions for all free units, float64 [units, dimensions]."""

Series = Mapping[str, Mapping[str, float]]
"""Numbers to plot, by family (for example ``groups``) and then by layer."""


class GranularityMeasurements(Record):
    """The base of what a granularity measures once a run, for a file of the run directory.

    Attributes:
        file: The file's name, for example ``groups.json``.
    """

    file: ClassVar[str]


@dataclass(frozen=True)
class GranularityContext:
    """The data that a granularity prepares itself with before a search.

    Attributes:
        scoring: The walk, the images and the seed, as criteria receive them.
        scores: One score per channel of each unit.
        min_keep: Least keep ratio of a unit, in (0, 1].
        untouched: Modules that no edit may change, even where they touch a free unit.
        batch: Makes the batch for timing, [N, C, H, W], on the device and in the layout of the search.
        measured: `Granularity.measurements` of an earlier part of the run; None if there are none.
        timed: Whether to measure times that are only displayed.
        on_progress: Receives progress messages.
    """

    scoring: ScoringContext
    scores: Scores
    min_keep: float
    batch: Callable[[], Tensor]
    untouched: Collection[str] = ()
    measured: GranularityMeasurements | None = None
    timed: bool = True
    on_progress: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class TextTable:
    """A table of texts for `prune-env inspect` and the report.

    Attributes:
        title: The title, a few words.
        words: The caption, in sentences: the meaning of the numbers.
        headings: One heading for each column; the first column names a layer.
        rows: For each row one text for each heading.
    """

    title: str
    words: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)


class Trainable(TrainingPart, Protocol):
    """A choice that recovery trains besides the weights, for example the inputs that each group reads.

    A training calls `network` first, then the methods of `TrainingPart`, and `finish` at its end.
    """

    def network(self, plan: PruningPlan, model: nn.Module, repair: Repair | None) -> nn.Module:
        """The cut network, in which the trained choice is still open."""
        ...

    def finish(
        self, trained: nn.Module, plan: PruningPlan, walk: LayerWalk, multiple: int
    ) -> tuple[nn.Module, PruningPlan]:
        """The network with the choice made, and its plan; widths are multiples of ``multiple``."""
        ...


class Granularity(ABC):
    """One shape that can be cut. The default methods suit whole channels.

    Args:
        settings: The granularity's section of the configuration.

    Attributes:
        name: The registered name.
        Settings: The class of the granularity's section.
        supports_latency: Whether the granularity works with a budget or reward of latency.
        makes_edits: Whether plans hold edits, so that a layer may read fewer channels than its units keep.
        beyond_channels: Whether plans may cost less than whole channels at their least widths. If so, `reachable` must
            say what the smallest plan costs, and refuse a budget below it.
        Measurements: The class of `measurements`; None if nothing is measured.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[GranularitySettings]] = GranularitySettings
    supports_latency: ClassVar[bool] = True
    makes_edits: ClassVar[bool] = False
    beyond_channels: ClassVar[bool] = False
    Measurements: ClassVar[type[GranularityMeasurements] | None] = None

    def __init__(self, settings: GranularitySettings) -> None:
        self.settings = settings

    @property
    def action(self) -> str:
        """The meaning of an action, one of `allowed_actions`."""
        return self.settings.action

    @classmethod
    def allowed_actions(cls) -> tuple[str, ...]:
        """The meanings that an action may have."""
        return get_args(cls.Settings.model_fields["action"].annotation)

    @classmethod
    def action_numbers(cls, action: str) -> int:  # noqa: ARG003
        """How many numbers an action with this meaning has."""
        return 1

    def with_action(self, action: str) -> Self:
        """A copy, prepared like the original, with another meaning of actions.

        Raises:
            UserError: If the granularity does not allow this action.
        """
        if action not in self.allowed_actions():
            allowed = ", ".join(map(repr, self.allowed_actions()))
            raise UserError(
                f"granularity.action: {action!r} given; allowed with granularity.name={self.name} are {allowed}."
            )
        other = copy.copy(self)
        other.settings = self.settings.model_copy(update={"action": action})
        return other

    @abstractmethod
    def prepare(self, context: GranularityContext) -> Self:
        """Prepares the granularity for one network: finds layers, scores kernels, measures times."""

    @abstractmethod
    def builder(self, budget: Budget) -> PlanBuilder:
        """A new plan builder for a budget."""

    def actions(self) -> tuple[ActionDimension, ...]:
        """The dimensions of an action: the numbers that decide one unit."""
        return (KEEP[self.action],)

    def limits(self) -> Mapping[str, float]:
        """The settings that scale actions, by key; a policy file records them."""
        return {}

    def shares_above(self, threshold: float) -> npt.NDArray[np.float64] | None:  # noqa: ARG002
        """The share of each free unit that is stronger than a threshold, [units]; None if strength is not compared.

        A threshold of 1 is about the mean strength of a layer. The decision for a unit is this share.
        """
        return None

    def reachable(self, budget: Budget) -> tuple[float, float]:
        """The smallest and the largest share of the dense cost that a plan can reach; by default of whole channels.

        Raises:
            BudgetError: If the budget is below the smallest. A `Budget` itself refuses what whole channels cannot meet,
                unless the granularity is `beyond_channels`.
        """
        return budget.reachable

    def demonstrations(self, rule_ratios: Sequence[Numbers], budget: Budget) -> list[Numbers]:  # noqa: ARG002
        """The decisions that an agent is shown first, derived from the keep ratios of rules.

        Args:
            rule_ratios: For each rule's plan the keep ratios, [units].
            budget: The budget; every demonstration meets it.

        Returns:
            `demonstration_count` arrays, [units, dimensions] each.
        """
        return [ratios[:, None] for ratios in rule_ratios]

    def demonstration_count(self, rules: int, budget: Budget) -> int:  # noqa: ARG002
        """How many demonstrations `demonstrations` makes from this many rules."""
        return rules

    def record(self, plan: PruningPlan) -> dict[str, Any]:  # noqa: ARG002
        """The fields of a plan's edits in ``evaluations.jsonl``; None for a field that the plan does not have."""
        return {}

    def measurements(self) -> GranularityMeasurements | None:
        """The measurements of `prepare`; None if there are none."""
        return None

    def restore(self, measured: GranularityMeasurements) -> Self:  # noqa: ARG002
        """Takes the measurements of a run, for its report; the granularity is not ready for a search."""
        return self

    def series(self, record: Mapping[str, Any]) -> Series:  # noqa: ARG002
        """The numbers that TensorBoard and the report plot for one line of ``evaluations.jsonl``."""
        return {}

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:  # noqa: ARG002
        """The tables of `prune-env inspect`; with a plan, the tables of the report.

        Args:
            batch: Images in the timed batch.
            plan: The report's plan; None for `prune-env inspect`.
        """
        return []

    def trainable(self, plan: PruningPlan) -> Trainable | None:  # noqa: ARG002
        """The choice that recovery trains besides the weights; None if there is none.

        Raises:
            ConfigError: If the settings ask for a choice that the plan does not offer.
        """
        return None


def register_granularity(granularity: type[Granularity]) -> type[Granularity]:
    """Registers a granularity under its ``name``."""
    GRANULARITIES.add(granularity.name, granularity)
    return granularity


def make_granularity(settings: GranularitySettings) -> Granularity:
    """The granularity that a configuration names, not yet prepared.

    Raises:
        ConfigError: If no granularity has this name.
    """
    granularity: Granularity = GRANULARITIES.find(settings.name)(settings)
    return granularity
