"""Black-box optimisers over the logarithms of the widths: CMA-ES and the tree-structured Parzen estimator."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from agents.rules import rule_plans
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.base import HasBudget, Search
from prune_env.search.registry import register_search
from rewards import ranks_as_quality

SIGMA = 0.3
"""Initial standard deviation of CMA-ES, in logarithms of the widths."""

REACH = 1.0
"""TPE proposes widths from exp(-1) to exp(1) times the channels; they are then scaled to meet the budget."""


class _Optimiser(Search):
    """Minimises the loss if the reward ranks plans as quality does: the loss is finer [our choice]; else -reward."""

    def _cost(self, logarithms: npt.ArrayLike) -> float:
        """The objective at widths channels * exp(logarithms), [free units], scaled to meet the budget."""
        budget = self.problem.budget
        widths = budget.project(budget.channels * np.exp(logarithms))
        trial = self.problem.attempt(widths, self.config.agent.name)
        return trial.outcome.loss if ranks_as_quality(self.problem.reward) else -trial.reward


@register_search("cma")
class CmaEs(_Optimiser):
    """CMA-ES (Hansen and Ostermeier, 2001) from the ``cma`` package, started at the uniform plan."""

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._start_at(np.zeros(len(problem.budget.units)))

    def _start_at(self, logarithms: npt.NDArray[np.float64]) -> None:
        import cma  # here, because the import takes a second

        # cma replaces seed 0 by the time of day, and refuses seeds above 2**32 - 1.
        options = {"seed": self.config.seed % (2**32 - 1) + 1, "verbose": -9}
        self._strategy = cma.CMAEvolutionStrategy(logarithms, SIGMA, options)

    def run(self, has_budget: HasBudget) -> None:
        """Tries generation after generation until the budget is spent."""
        while True:
            candidates = self._strategy.ask()
            losses = []
            for candidate in candidates:
                if not has_budget():
                    return
                losses.append(self._cost(candidate))
            self._strategy.tell(candidates, losses)

    @property
    def scalars(self) -> Mapping[str, float]:
        """The step size."""
        return {"search/sigma": float(self._strategy.sigma)}


@register_search("cma_from_rules")
class CmaFromRules(CmaEs):
    """CMA-ES started at the best plan of the rules, which also demonstrate plans to our agent.

    A comparison with this search shows what the agent adds to the demonstrations.
    """

    probes = needs_probes = True

    def run(self, has_budget: HasBudget) -> None:
        """Tries the plans of the rules, then generation after generation around the best plan."""
        starts = [np.log(widths / self.problem.budget.channels) for widths in rule_plans(self.problem)]
        losses = []
        for start in starts:
            if not has_budget():
                return
            losses.append(self._cost(start))
        self._start_at(starts[int(np.argmin(losses))])
        super().run(has_budget)


@register_search("tpe")
class Tpe(_Optimiser):
    """TPE (Bergstra et al., 2011) by ``optuna``, multivariate, one parameter per unit."""

    def run(self, has_budget: HasBudget) -> None:
        """Tries proposal after proposal until the budget is spent."""
        import optuna  # here, because the import takes a second

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.config.seed, multivariate=True)
        study = optuna.create_study(sampler=sampler)
        while has_budget():
            trial = study.ask()
            study.tell(
                trial, self._cost([trial.suggest_float(u.name, -REACH, REACH) for u in self.problem.budget.units])
            )
