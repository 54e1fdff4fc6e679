"""The library's rewards, each a pure function of two outcomes.

AMC is He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018.
"""

import math
from collections.abc import Callable
from functools import partial

from prune_env.rewards.errors import RewardError
from prune_env.rewards.outcome import Outcome
from prune_env.rewards.registry import Reward, register
from prune_env.rewards.settings import Setting

Cost = Callable[[Outcome], float]
"""Reads a cost from an outcome."""

# Tolerance of the floor: without it, a rounding error could reject a plan that loses exactly the allowed drop. It is
# far below real differences, because most qualities are counts divided by the size of the reward set.
_ROUNDING = 1e-9
_DEFAULT_DROP = 0.01


@register("error", ranks_as_quality=True, rises_with_quality=True)
def error() -> Reward:
    """Negative error, ``quality - 1``, in [-1, 0].

    AMC's published reward under a resource constraint. It ignores the cost, which the budget limits.
    """
    return _negative_error


@register("error_log_macs", rises_with_quality=True)
def error_log_macs() -> Reward:
    """AMC's published ``-error * ln(MACs)``, <= 0: quality first, then fewer MACs."""
    return _error_log_macs


@register("error_log_params", rises_with_quality=True)
def error_log_params() -> Reward:
    """AMC's published ``-error * ln(params)``, <= 0: quality first, then fewer parameters."""
    return _error_log_params


@register(
    "accuracy_guaranteed",
    rises_with_quality=True,
    floor=Setting(0.0, 1.0, "least quality of an acceptable plan, as a share"),
    drop=Setting(0.0, 1.0, "quality that may be lost against the dense network, as a share"),
)
def accuracy_guaranteed(floor: float | None = None, drop: float | None = None) -> Reward:
    """The MACs saved above a floor of quality [our choice].

    At or above the floor, the reward is the share of the MACs that is saved, in [0, 1]. Below the floor, it is
    ``quality - floor``, which is negative: worse than any plan above the floor, and rising with quality.

    AMC's own reward for this purpose is ``error_log_macs``, which weighs quality against cost and has no floor.

    Args:
        floor: Least quality of an acceptable plan, in [0, 1]. Give at most one of the two settings.
        drop: Quality that may be lost against the dense network, in [0, 1]; 0.01 if neither setting is given.

    Raises:
        RewardError: Both ``floor`` and ``drop`` are given.
    """
    if floor is not None and drop is not None:
        raise RewardError(
            f"reward 'accuracy_guaranteed': floor={floor} and drop={drop} were both given; "
            "give one of them (floor: least quality; drop: what may be lost against the dense network)"
        )
    if floor is not None:
        return partial(_cheapest_above_floor, floor=floor)
    return partial(_cheapest_above_drop, drop=_DEFAULT_DROP if drop is None else drop)


@register(
    "budget_penalty",
    rises_with_quality=True,
    keep=Setting(0.0, 1.0, "share of the dense MACs that may remain", above_low=True),
    weight=Setting(0.0, math.inf, "quality lost when the excess over the budget equals the dense network's MACs"),
)
def budget_penalty(keep: float, weight: float = 1.0) -> Reward:
    """``quality - weight * max(0, macs / dense macs - keep)`` [our choice]: a soft budget.

    Args:
        keep: Share of the dense MACs that may remain without a penalty, in (0, 1].
        weight: Quality lost when the excess over the budget equals the dense network's MACs, >= 0.
    """
    return partial(_penalised, cost=_macs, keep=keep, weight=weight)


@register(
    "latency_penalty",
    needs_latency=True,
    rises_with_quality=True,
    keep=Setting(0.0, 1.0, "share of the dense latency that may remain", above_low=True),
    weight=Setting(0.0, math.inf, "quality lost when the excess over the budget equals the dense network's latency"),
)
def latency_penalty(keep: float, weight: float = 1.0) -> Reward:
    """``quality - weight * max(0, latency / dense latency - keep)`` [our choice]: `budget_penalty` on latency.

    Args:
        keep: Share of the dense latency that may remain without a penalty, in (0, 1].
        weight: Quality lost when the excess over the budget equals the dense network's latency, >= 0.
    """
    return partial(_penalised, cost=_latency, keep=keep, weight=weight)


def _negative_error(outcome: Outcome, baseline: Outcome) -> float:  # noqa: ARG001
    return outcome.quality - 1.0


def _error_log_macs(outcome: Outcome, baseline: Outcome) -> float:  # noqa: ARG001
    return -(1.0 - outcome.quality) * math.log(outcome.macs)


def _error_log_params(outcome: Outcome, baseline: Outcome) -> float:  # noqa: ARG001
    return -(1.0 - outcome.quality) * math.log(outcome.params)


def _cheapest_above_floor(outcome: Outcome, baseline: Outcome, *, floor: float) -> float:
    margin = outcome.quality - floor
    if margin < -_ROUNDING:
        return margin
    return max(0.0, 1.0 - outcome.macs / baseline.macs)


def _cheapest_above_drop(outcome: Outcome, baseline: Outcome, *, drop: float) -> float:
    return _cheapest_above_floor(outcome, baseline, floor=baseline.quality - drop)


def _penalised(outcome: Outcome, baseline: Outcome, *, cost: Cost, keep: float, weight: float) -> float:
    return outcome.quality - weight * max(0.0, cost(outcome) / cost(baseline) - keep)


def _macs(outcome: Outcome) -> float:
    return outcome.macs


def _latency(outcome: Outcome) -> float:
    if outcome.latency is None:
        raise RewardError("reward 'latency_penalty' needs outcomes with a latency, but outcome.latency is None")
    return outcome.latency
