"""The searches that an agent must beat: one ratio for all, random widths, and rules of what probes have shown."""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from agents.rules import EXPONENTS, POWERS, eigenvalue_widths, greedy_widths, power_widths
from prune_env.common.arrays import IntArray
from prune_env.search.base import HasBudget, Search
from prune_env.search.registry import register_search


class Listed(Search):
    """A search that knows its proposals beforehand, whatever they turn out to be worth."""

    def run(self, has_budget: HasBudget) -> None:
        """Tries the proposals in turn."""
        for widths in self.proposals():
            if not has_budget():
                break
            self.problem.attempt(widths, self.config.agent.name)

    @abstractmethod
    def proposals(self) -> Iterator[IntArray]:
        """Widths to try, int64 [free units] each."""


@register_search("uniform")
class Uniform(Listed):
    """One keep ratio for all units, the largest that meets the budget: one plan."""

    def proposals(self) -> Iterator[IntArray]:
        """The plan."""
        yield self.problem.budget.uniform()


@register_search("random")
class Random(Listed):
    """Log-normal widths around the uniform ones, made to meet the budget: without end."""

    def proposals(self) -> Iterator[IntArray]:
        """One plan after the other."""
        generator = np.random.default_rng(self.config.seed)
        while True:
            yield self.problem.budget.random(generator)


@register_search("greedy")
class Greedy(Listed):
    """Cuts where the loss is expected to rise least for the cost that is saved: one plan for each of `POWERS`."""

    probes = needs_probes = True

    def proposals(self) -> Iterator[IntArray]:
        """The plans, flattest loss first."""
        return (greedy_widths(self.problem, power) for power in POWERS)


@register_search("power")
class PowerRule(Listed):
    """Keep ratios in proportion to powers of the unit's sensitivity: one plan for each of `EXPONENTS`."""

    probes = needs_probes = True

    def proposals(self) -> Iterator[IntArray]:
        """The plans, weakest power first."""
        return (power_widths(self.problem, exponent) for exponent in EXPONENTS)


@register_search("eigenvalue")
class EigenvalueRule(Listed):
    """Keep ratios by the Hessian's top eigenvalue in each unit's weights (system D): one plan."""

    def proposals(self) -> Iterator[IntArray]:
        """The plan."""
        yield eigenvalue_widths(self.problem)
