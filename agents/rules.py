"""Widths by rule: from how far the loss rises when each unit alone is cut, or from Hessian eigenvalues."""

import numpy as np
import numpy.typing as npt

from prune_env.common.arrays import IntArray
from prune_env.criteria.eigenvalues import layer_eigenvalues
from prune_env.env.problem import PruningProblem

LEAST_RISE = 1e-4
"""A loss that rises by less, in nats, is taken to rise by this much: it is within the noise of the reward set."""

EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Of the power rule [our choice]: from nearly uniform to strongly by sensitivity."""

POWERS = (0.25, 0.5, 1.0, 2.0)
"""Of the greedy rule's loss [our choice]: from flat to steep."""

LEAST_EIGENVALUE = 1e-12
"""A smaller eigenvalue is taken for this one: its unit does not matter to the loss at all."""

MOST_STRENGTH = 100.0
"""With it all but the most curved units are at their least."""

RULE_PLANS = len(POWERS) + len(EXPONENTS) + 1
"""Plans that `rule_plans` gives."""

HALVINGS = 50

STRIDE = 64
"""The greedy rule cuts a unit by this part of its channels at a time [our choice]."""


def rule_plans(problem: PruningProblem) -> list[IntArray]:
    """The plans of the greedy rule, of the power rule, and the uniform one: the best come first as a rule.

    Args:
        problem: The problem; its units are probed if they were not yet.

    Returns:
        `RULE_PLANS` widths, int64 [free units] each.
    """
    greedy = [greedy_widths(problem, power) for power in POWERS]
    power = [power_widths(problem, exponent) for exponent in EXPONENTS]
    return [*greedy, *power, problem.budget.uniform()]


def power_widths(problem: PruningProblem, exponent: float) -> IntArray:
    """Keep ratios in proportion to a power of the unit's sensitivity, at the budget [our choice].

    Args:
        problem: The problem; its units are probed if they were not yet.
        exponent: 0 gives the uniform plan.

    Returns:
        Widths, int64 [free units].
    """
    return problem.budget.project(problem.budget.channels * _rises(problem) ** exponent)


def greedy_widths(problem: PruningProblem, power: float) -> IntArray:
    """From the dense widths down, always where the loss is expected to rise least for the cost that is saved.

    At keep ratio k a unit's loss is taken to have risen by s (k^-power - 1), with s such that this is what the probe
    has shown at the probe's ratio [our choice].

    Args:
        problem: The problem; its units are probed if they were not yet.
        power: How steeply the loss rises, above 0.

    Returns:
        Widths, int64 [free units].
    """
    budget = problem.budget
    assert problem.probe_keep is not None
    probed = [budget.allowed(i, problem.probe_keep * channels) for i, channels in enumerate(budget.channels)]
    # A unit that cannot be cut to less than all of it has no price.
    scale = _rises(problem) / np.maximum((probed / budget.channels) ** -power - 1.0, 1e-12)
    stride = np.maximum(budget.round_to, budget.channels // STRIDE)
    widths, cost = budget.channels.copy(), budget.dense
    while cost > budget.limit:
        narrower = np.array([budget.allowed(i, width - stride[i]) for i, width in enumerate(widths)])
        costs = np.array([budget.cost(_with(widths, i, narrower[i])) for i in range(len(widths))])
        rises = scale * ((narrower / budget.channels) ** -power - (widths / budget.channels) ** -power)
        saved = cost - costs
        price = np.divide(rises, saved, out=np.full(len(widths), np.inf), where=saved > 0)
        cheapest = int(price.argmin())
        widths[cheapest], cost = narrower[cheapest], int(costs[cheapest])
    return widths


def eigenvalue_widths(problem: PruningProblem) -> IntArray:
    """The less curved the loss is in a unit's weights, the more is cut (system D).

    Known from Yang and Liu (Neurocomputing 2022): rates by layer follow from the Hessian's eigenvalues. The formula is
    our choice: keep ratios 1 - t (1 - u), where u is the eigenvalue's logarithm scaled to [0, 1] over the units, and t
    is as small as the budget allows.

    Args:
        problem: The problem; the eigenvalues are computed on its subject's images.

    Returns:
        Widths, int64 [free units].
    """
    budget = problem.budget
    found = layer_eigenvalues(problem.context)
    logs = np.log([max(found[unit.name], LEAST_EIGENVALUE) for unit in budget.units])
    span = logs.max() - logs.min()
    cut = 1.0 - (logs - logs.min()) / span if span > 0 else np.ones(len(logs))

    def widths(strength: float) -> IntArray:
        wanted = budget.channels * (1.0 - strength * cut)
        return np.array([budget.allowed(number, width) for number, width in enumerate(wanted)])

    enough, too_little = MOST_STRENGTH, 0.0
    if budget.cost(widths(enough)) > budget.limit:
        # The most curved units are too dear to stay whole.
        return budget.project(widths(enough))
    for _ in range(HALVINGS):
        middle = 0.5 * (enough + too_little)
        if budget.cost(widths(middle)) <= budget.limit:
            enough = middle
        else:
            too_little = middle
    return widths(enough)


def _with(widths: IntArray, number: int, width: int) -> IntArray:
    changed = widths.copy()
    changed[number] = width
    return changed


def _rises(problem: PruningProblem) -> npt.NDArray[np.float64]:
    """How far the loss rises by free unit, in nats."""
    return np.array([max(problem.loss_rises[unit.name], LEAST_RISE) for unit in problem.budget.units])
