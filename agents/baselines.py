"""Baselines that an agent must beat: uniform widths, random widths, rules from probes or Hessian eigenvalues."""

import math
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from prune_env.agents.rules import EXPONENTS, POWERS, eigenvalue_widths, greedy_widths, power_widths
from prune_env.common.arrays import IntArray
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search import Proposal, Search
from prune_env.search.registry import register_search


class Listed(Search):
    """A search whose proposals do not depend on the outcomes of its trials."""

    independent = math.inf

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a budget that whole channels cannot meet.

        Raises:
            BudgetError: Gives the budgets that whole channels meet.
        """
        problem.budget.refuse_widths(f"agent.name={config.agent.name}")

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._proposals: Iterator[IntArray] | None = None

    def ask(self) -> Proposal | None:
        """The next of the proposals."""
        # Not in the constructor, because rules read the probes.
        if self._proposals is None:
            self._proposals = self.proposals()
        widths = next(self._proposals, None)
        return Proposal(widths) if widths is not None else None

    @abstractmethod
    def proposals(self) -> Iterator[IntArray]:
        """Widths to try, int64 [free units] each."""


@register_search("uniform")
class Uniform(Listed):
    """The largest keep ratio that meets the budget, the same for all units: one plan."""

    def proposals(self) -> Iterator[IntArray]:
        """Yields the uniform widths."""
        yield self.problem.budget.uniform()


@register_search("random")
class Random(Listed):
    """Log-normal widths around the uniform widths, scaled to meet the budget: plans without end."""

    def proposals(self) -> Iterator[IntArray]:
        """Yields random widths without end."""
        generator = np.random.default_rng(self.config.seed)
        while True:
            yield self.problem.budget.random(generator)


@register_search("greedy")
class Greedy(Listed):
    """Cuts the unit with the least expected loss rise per saved cost: one plan for each of `POWERS`."""

    probes = needs_probes = True

    def proposals(self) -> Iterator[IntArray]:
        """The widths for each power, from the flattest loss curve to the steepest."""
        return (greedy_widths(self.problem, power) for power in POWERS)


@register_search("power")
class PowerRule(Listed):
    """Keep ratios proportional to a power of each unit's sensitivity: one plan for each of `EXPONENTS`."""

    probes = needs_probes = True

    def proposals(self) -> Iterator[IntArray]:
        """The widths for each exponent, smallest exponent first."""
        return (power_widths(self.problem, exponent) for exponent in EXPONENTS)


@register_search("eigenvalue")
class EigenvalueRule(Listed):
    """Keep ratios from the top Hessian eigenvalue of each unit's weights (system D): one plan."""

    def proposals(self) -> Iterator[IntArray]:
        """Yields the widths of the rule."""
        yield eigenvalue_widths(self.problem)
