"""A problem whose best plan is known: a real network's walk and costs, and a loss in closed form instead of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import nn

from prune_env import LayerWalk, PruningPlan
from prune_env.budget import Budget
from prune_env.budget.cost_form import CostForm
from prune_env.config.granularity import GranularitySettings
from prune_env.criteria import ScoringContext, score_channels
from prune_env.data import ImageSet
from prune_env.env.problem import PruningProblem
from prune_env.granularity import GranularityContext, make_granularity
from prune_env.rewards import Outcome, make_reward

STAGES = (24, 40, 64, 96)
UNITS_A_STAGE = 5
SIDE = 16
KEEP = 0.5
DENSE_LOSS = 0.1
MEDIAN_SHARE = 0.02
EXPONENTS = (0.5, 3.0)
"""Range of the exponents. A probe shows scale and exponent of a unit only as one number."""

FloatArray = npt.NDArray[np.float64]


@cache
def chain_walk() -> LayerWalk:
    """A chain of 20 convolutions, all free, in four stages of half the side each; every third is 1x1."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    inputs = 3
    for number in range(len(STAGES) * UNITS_A_STAGE):
        stage, place = divmod(number, UNITS_A_STAGE)
        stride = 2 if stage and place == 0 else 1
        size = 1 if number % 3 == 2 else 3
        layers += [nn.Conv2d(inputs, STAGES[stage], size, stride=stride, padding=size // 2), nn.ReLU()]
        inputs = STAGES[stage]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)).eval()
    return LayerWalk.trace(model, torch.randn(1, 3, SIDE, SIDE))


@dataclass(frozen=True)
class Landscape:
    """loss(k) = dense + sum of s (k^-p - 1) + sum over neighbours of c (1 / (k k') - 1), at keep ratios k.

    Attributes:
        scales: s, [units].
        exponents: p, [units].
        couplings: c, [units - 1].
    """

    scales: FloatArray
    exponents: FloatArray
    couplings: FloatArray

    @classmethod
    def drawn(cls, seed: int, units: int, coupled: bool) -> "Landscape":
        """A random landscape; without coupling, all couplings are 0."""
        generator = np.random.default_rng(seed)
        scales = MEDIAN_SHARE * np.exp(generator.standard_normal(units))
        exponents = generator.uniform(*EXPONENTS, units)
        couplings = MEDIAN_SHARE * np.exp(generator.standard_normal(units - 1))
        return cls(scales, exponents, couplings * coupled)

    def loss(self, keep: FloatArray) -> float:
        """The loss at keep ratios [units]."""
        alone = self.scales @ (keep**-self.exponents - 1.0)
        return float(DENSE_LOSS + alone + self.couplings @ (1.0 / (keep[:-1] * keep[1:]) - 1.0))


class FormulaEvaluator:
    """Stands in for the evaluator; quality falls with the loss and comes in steps of one image in a thousand."""

    images = 1000
    reward: Sequence[None] = (None,)
    hits = 0

    def __init__(self, walk: LayerWalk, landscape: Landscape) -> None:
        self.walk = walk
        self.landscape = landscape

    def dense(self) -> Outcome:
        """The outcome of the network that keeps everything."""
        return self.evaluate(self.walk.plan({}))

    def evaluate(self, plan: PruningPlan, stop_early: object = None) -> Outcome:  # noqa: ARG002  (there are no batches)
        """The outcome of a plan by the formula."""
        keep = np.array([plan.widths[unit.name] / unit.channels for unit in self.walk.free])
        loss = self.landscape.loss(keep)
        return Outcome(round(float(np.exp(-loss)), 3), loss, plan.costs.macs, plan.costs.params)

    def known(self, plan: PruningPlan, stop_early: object = None) -> None:
        """The formula needs no memory."""

    def remember(self, plan: PruningPlan, outcome: Outcome) -> None:
        """The formula needs no memory."""


def synthetic_problem(seed: int, coupled: bool) -> PruningProblem:
    """A problem of 20 free units at half the MACs.

    Args:
        seed: Seed of the landscape.
        coupled: Whether the loss of a unit's cut depends on its neighbours' cuts; the cost always does.
    """
    walk = chain_walk()
    landscape = Landscape.drawn(seed, len(walk.free), coupled)
    noise = torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    context = ScoringContext(walk, ImageSet(noise, torch.zeros(len(noise), dtype=torch.int64)))
    scores = score_channels("l1", context)
    granularity = make_granularity(GranularitySettings())
    return PruningProblem(
        walk,
        Budget(walk, "macs", KEEP),
        cast(Any, FormulaEvaluator(walk, landscape)),
        scores,
        make_reward("error"),
        None,
        input_size=(SIDE, SIDE),
        context=context,
        granularity=granularity.prepare(GranularityContext(context, scores, 0.1, lambda: context.images)),
        probe_keep=0.25,
    )


def optimum(problem: PruningProblem) -> float:
    """The least loss at the budget if widths could be any real numbers; whole widths can only be worse."""
    return loss_at(problem, best_keep(problem))


def loss_at(problem: PruningProblem, keep: FloatArray) -> float:
    """The loss at keep ratios [units], without a trial."""
    landscape: Landscape = cast(Any, problem.evaluator).landscape
    return landscape.loss(keep)


def best_keep(problem: PruningProblem) -> FloatArray:
    """The keep ratios of the `optimum`, [units].

    Loss and cost are sums of exponentials of the ratios' logarithms, both convex: the minimum is the global one.
    """
    budget = problem.budget
    bounds = [(float(low), 0.0) for low in np.log(budget.least / budget.channels)]
    found = minimize(
        lambda logs: loss_at(problem, np.exp(logs)),
        np.log(budget.uniform() / budget.channels),
        method="SLSQP",
        bounds=bounds,
        constraints={
            "type": "ineq",
            "fun": lambda logs: np.log(budget.limit / real_cost(budget.cost_form, budget.channels * np.exp(logs))),
        },
        options={"maxiter": 1000, "ftol": 1e-10},
    )
    assert found.success, found.message
    return cast(FloatArray, np.exp(found.x))


def real_cost(form: CostForm, widths: FloatArray) -> float:
    """`CostForm.cost` where widths need not be whole."""
    products = (form.fixed_in + form.inputs @ widths) @ (form.fixed_out + form.outputs @ widths)
    return float(form.constant + form.linear @ widths + products)
