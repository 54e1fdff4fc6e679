"""Rules for widths: from the loss rise of each unit when it alone is cut (probes), or from Hessian eigenvalues."""

import numpy as np
import numpy.typing as npt

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.criteria.eigenvalues import layer_eigenvalues
from prune_env.env.problem import PruningProblem

LEAST_RISE = 1e-4
"""Lower bound on a loss rise, in nats: smaller rises are within the noise of the reward set."""

EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Exponents of the power rule [our choice]: from nearly uniform to strongly dependent on sensitivity."""

POWERS = (0.25, 0.5, 1.0, 2.0)
"""Powers of the greedy rule's loss curve [our choice]: from flat to steep."""

LEAST_EIGENVALUE = 1e-12
"""Lower bound on an eigenvalue: the loss does not depend on a unit with a smaller eigenvalue."""

MOST_STRENGTH = 100.0
"""Largest strength of the cut: only the units with the largest eigenvalues stay above their least width."""

RULE_PLANS = len(POWERS) + len(EXPONENTS) + 1
"""Number of plans that `rule_plans` returns."""

HALVINGS = 50

STRIDE = 64
"""The greedy rule cuts 1 / `STRIDE` of a unit's channels per step [our choice]."""


def rule_plans(problem: PruningProblem) -> list[IntArray]:
    """Widths of the greedy rule, the power rule and the uniform plan: the best plans usually come first.

    Args:
        problem: The problem; probes its units if they have not been probed.

    Returns:
        `RULE_PLANS` widths, int64 [free units] each.
    """
    greedy = [greedy_widths(problem, power) for power in POWERS]
    power = [power_widths(problem, exponent) for exponent in EXPONENTS]
    return [*greedy, *power, problem.budget.uniform()]


def power_widths(problem: PruningProblem, exponent: float) -> IntArray:
    """Widths at the budget, with keep ratios proportional to a power of each unit's loss rise [our choice].

    Args:
        problem: The problem; probes its units if they have not been probed.
        exponent: Exponent of the loss rise; 0 gives the uniform plan.

    Returns:
        Widths, int64 [free units].
    """
    return problem.budget.project(problem.budget.channels * _rises(problem) ** exponent)


def greedy_widths(problem: PruningProblem, power: float) -> IntArray:
    """Starts at the dense widths and cuts, step by step, the unit with the least expected loss rise per saved cost.

    The expected loss rise of a unit at keep ratio k is s (k^-power - 1). The scale s makes the curve pass through the
    unit's probe [our choice].

    Args:
        problem: The problem; probes its units if they have not been probed.
        power: Steepness of the loss curve, above 0.

    Returns:
        Widths, int64 [free units]; the least widths where only edits can meet the budget.
    """
    budget = problem.budget
    assert problem.probe_keep is not None
    probed = [budget.allowed(i, problem.probe_keep * channels) for i, channels in enumerate(budget.channels)]
    # Avoid a division by zero for units that cannot shrink.
    scale = _rises(problem) / np.maximum((probed / budget.channels) ** -power - 1.0, 1e-12)
    stride = np.maximum(budget.round_to, budget.channels // STRIDE)
    widths = budget.channels.copy()
    while over := [one for one in budget.all if one.cost(widths) > one.limit]:
        narrower = np.array([budget.allowed(i, width - stride[i]) for i, width in enumerate(widths)])
        rises = scale * ((narrower / budget.channels) ** -power - (widths / budget.channels) ** -power)
        saved = np.sum([_saved(one, widths, narrower) for one in over], axis=0)
        price = np.divide(rises, saved, out=np.full(len(widths), np.inf), where=saved > 0)
        cheapest = int(price.argmin())
        if saved[cheapest] <= 0:
            break  # every unit is at its least width, and only edits can meet the budget
        widths[cheapest] = narrower[cheapest]
    return budget.filled(widths, widths)


def eigenvalue_widths(problem: PruningProblem) -> IntArray:
    """Cuts most where the loss has the least curvature in a unit's weights (system D).

    Yang and Liu (Neurocomputing 2022) derive pruning rates by layer from the Hessian's eigenvalues. The formula is
    ours [our choice]: the keep ratio is 1 - t (1 - u). Here u is the eigenvalue's logarithm, scaled to [0, 1] over the
    units, and t is the smallest value that meets the budget.

    Args:
        problem: The problem; the eigenvalues are computed on the images of its ``context``.

    Returns:
        Widths, int64 [free units].
    """
    budget = problem.budget
    eigenvalues = layer_eigenvalues(problem.context)
    logs = np.log([max(eigenvalues[unit.name], LEAST_EIGENVALUE) for unit in budget.units])
    span = logs.max() - logs.min()
    cut = 1.0 - (logs - logs.min()) / span if span > 0 else np.ones(len(logs))

    def widths(strength: float) -> IntArray:
        wanted = budget.channels * (1.0 - strength * cut)
        return np.array([budget.allowed(number, width) for number, width in enumerate(wanted)])

    enough, too_little = MOST_STRENGTH, 0.0
    if not budget.fits(widths(enough)):
        # The units with the largest eigenvalues must shrink as well to meet the budget.
        return budget.project(widths(enough))
    for _ in range(HALVINGS):
        middle = 0.5 * (enough + too_little)
        if budget.fits(widths(middle)):
            enough = middle
        else:
            too_little = middle
    return budget.filled(widths(enough), budget.channels)


def _saved(budget: Budget, widths: IntArray, narrower: IntArray) -> npt.NDArray[np.float64]:
    """What each unit saves when it alone becomes narrower, as a share of the dense cost, [units]."""
    costs = [budget.cost(np.where(np.arange(len(widths)) == i, narrower, widths)) for i in range(len(widths))]
    return (budget.cost(widths) - np.array(costs)) / budget.dense


def _rises(problem: PruningProblem) -> npt.NDArray[np.float64]:
    """Loss rise of each free unit when it alone is cut, in nats, at least `LEAST_RISE`."""
    return np.array([max(problem.loss_rises[unit.name], LEAST_RISE) for unit in problem.budget.units])
