"""Black-box optimisers over the logarithms of the widths: CMA-ES and the tree-structured Parzen estimator."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_env.agents.rules import RULE_PLANS, rule_plans
from prune_env.common.arrays import IntArray
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.rewards import ranks_as_quality
from prune_env.search import Proposal, Search
from prune_env.search.registry import register_search

SIGMA = 0.3
"""Initial standard deviation of CMA-ES, in logarithms of the widths."""

REACH = 1.0
"""TPE proposes widths from exp(-1) to exp(1) times the channels; they are then scaled to meet the budget."""


class _Optimiser(Search):
    """Minimises the loss if the reward ranks plans as quality does: the loss is finer [our choice]; else -reward."""

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a budget that whole channels cannot meet.

        Raises:
            BudgetError: Gives the budgets that whole channels meet.
        """
        problem.budget.refuse_widths(f"agent.name={config.agent.name}")

    def _proposal(self, logarithms: npt.ArrayLike, note: Any = None) -> Proposal:
        """The proposal of widths channels * exp(logarithms), [free units], scaled to meet the budget."""
        budget = self.problem.budget
        return Proposal(budget.project(budget.channels * np.exp(logarithms)), note=note)

    def _cost(self, trial: Trial) -> float:
        """The objective of a trial."""
        return trial.outcome.loss if ranks_as_quality(self.problem.reward) else -trial.reward


@register_search("cma")
class CmaEs(_Optimiser):
    """CMA-ES (Hansen and Ostermeier, 2001) from the ``cma`` package, started at the uniform plan.

    With a lag, a generation may be drawn before all outcomes of the one before it are told: then it comes from the
    same distribution, and each generation is told when its outcomes are complete [our choice].
    """

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._start_at(np.zeros(len(problem.budget.units)))

    def _start_at(self, logarithms: npt.NDArray[np.float64]) -> None:
        import cma  # here, because the import takes a second

        # cma replaces seed 0 by the time of day, and refuses seeds above 2**32 - 1.
        options = {"seed": self.config.seed % (2**32 - 1) + 1, "verbose": -9}
        self._strategy = cma.CMAEvolutionStrategy(logarithms, SIGMA, options)
        self._drawn: deque[npt.NDArray[np.float64]] = deque()
        self._told: list[tuple[npt.NDArray[np.float64], float]] = []

    def ask(self) -> Proposal | None:
        """The next candidate of the generation, or the first of a new one."""
        if not self._drawn:
            self._learn()
            self._drawn.extend(self._strategy.ask())
        candidate = self._drawn.popleft()
        return self._proposal(candidate, note=candidate)

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        """Keeps the outcome until a generation is complete and the next one is drawn."""
        self._told.append((proposal.note, self._cost(trial)))

    def _learn(self) -> None:
        """Moves the distribution by the oldest generation whose outcomes are all told, if there is one."""
        size = self._strategy.popsize
        if len(self._told) >= size:
            candidates, costs = zip(*self._told[:size], strict=True)
            self._strategy.tell(list(candidates), list(costs))
            del self._told[:size]

    @property
    def scalars(self) -> Mapping[str, float]:
        """The step size."""
        return {"train/sigma": float(self._strategy.sigma)}


@register_search("cma_from_rules")
class CmaFromRules(CmaEs):
    """CMA-ES started at the best plan of the rules, which also demonstrate plans to our agent.

    A comparison with this search shows what the agent adds to the demonstrations.
    """

    probes = needs_probes = True
    independent = RULE_PLANS

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._rules: deque[IntArray] | None = None
        self._best: tuple[float, npt.NDArray[np.float64]] | None = None
        self._tried = 0

    def ask(self) -> Proposal | None:
        """The plans of the rules, then generation after generation around the best plan."""
        if self._rules is None:
            self._rules = deque(rule_plans(self.problem))
        if not self._rules:
            return super().ask()
        start = np.log(self._rules.popleft() / self.problem.budget.channels)
        return self._proposal(start, note=start)

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        """Starts at the best of the rules once all of them are told."""
        if self._tried == RULE_PLANS:
            super().tell(proposal, trial)
            return
        self._tried += 1
        cost = self._cost(trial)
        if self._best is None or cost < self._best[0]:
            self._best = cost, proposal.note
        if self._tried == RULE_PLANS:
            self._start_at(self._best[1])


@register_search("tpe")
class Tpe(_Optimiser):
    """TPE (Bergstra et al., 2011) by ``optuna``, multivariate, one parameter per unit."""

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        import optuna  # here, because the import takes a second

        super().__init__(problem, config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=config.seed, multivariate=True))

    def ask(self) -> Proposal | None:
        """The study's next suggestion."""
        trial = self._study.ask()
        logarithms = [trial.suggest_float(unit.name, -REACH, REACH) for unit in self.problem.budget.units]
        return self._proposal(logarithms, note=trial)

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        """Adds the outcome to the study."""
        self._study.tell(proposal.note, self._cost(trial))
