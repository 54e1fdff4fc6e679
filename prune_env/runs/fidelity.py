"""The reward's fidelity: how well the reward of a plan predicts the quality after fine-tuning."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_env.common.errors import RunError
from prune_env.common.ranges import Count, Quality
from prune_env.common.records import Record, append_record, read_records, renamed
from prune_env.config import RunConfig
from prune_env.config.trust import Trust
from prune_env.data import Splits
from prune_env.env.loading import check_names, device_of, refuse_sparse_training
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.measuring import measure
from prune_env.recover import train_network
from prune_env.runs.networks import test_batches
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import differing_settings, settings_of
from prune_env.runs.starting import OnDense, OnProgress, check_same_start, load_problem, quietly, start_run

Array = npt.NDArray[np.float64]

RESAMPLES = 1_000
"""Bootstrap samples of the plans."""


class FidelityRecord(Record):
    """One line of ``fidelity.jsonl``: a plan; in the file, the qualities before have the task's name.

    Attributes:
        widths: The width of each free unit.
        reward: The reward.
        quality: The quality on the reward set, in [0, 1].
        tuned: The quality on the test set after fine-tuning, in [0, 1].
    """

    widths: list[Count]
    reward: float
    quality: Quality
    tuned: Quality


def measure_fidelity(
    settings: RunConfig, folder: Path, on_progress: OnProgress = quietly, on_dense: OnDense = quietly
) -> dict[str, Any]:
    """Fine-tunes random plans briefly and correlates quality with reward; resumes in an existing folder.

    Args:
        settings: The settings; ``fidelity`` sets the number of plans and their fine-tuning.
        folder: The run directory of the plans' records; made if it does not exist.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the dense network.

    Returns:
        The network's name, and the result of `summarise`.

    Raises:
        DoubtfulNetworkError: If cuts of the dense network make no sense.
        RunError: If the folder holds plans that were measured with other settings.
    """
    check_names(settings)
    refuse_sparse_training(settings)
    run, trust = RunDirectory(folder), Trust.of(settings)
    started = run.config.is_file()
    if started and differing_settings(run.settings(trust=trust), settings):
        raise RunError(f"{str(folder)!r} holds plans of other settings. Give another folder by run.directory=...")
    base, earlier = (settings_of(run, trust=trust), run) if started else (settings, None)
    splits, problem = load_problem(base, earlier, on_progress, on_dense)
    problem.budget.refuse_widths("the fidelity of the reward")
    problem.race = None  # a plan that a race stops has no quality to compare
    if started:
        check_same_start(run, splits, problem)
    else:
        run = start_run(folder, settings, splits, problem)
    place, kind = folder / "fidelity.jsonl", renamed(FidelityRecord, quality=problem.quality_name)
    generator = np.random.default_rng(settings.seed)
    with run.held():
        known = read_records(place, kind)
        for number in range(settings.fidelity.plans):
            # Vary the spread, so that good and bad plans are drawn.
            widths = problem.budget.random(generator, 0.1 + 0.5 * number / settings.fidelity.plans)
            if number < len(known) and known[number].widths != widths.tolist():
                raise RunError(
                    f"{str(place)!r}: plan {number} has other widths than this release draws. Give another folder by "
                    "run.directory=..."
                )
            if number >= len(known):
                on_progress(f"plan {number + 1} of {settings.fidelity.plans}: evaluating and fine-tuning")
                append_record(place, _tuned(problem, splits, settings, widths.tolist()))
    plans = [record.as_record() for record in read_records(place, kind)]
    return {"model": settings.model.name, **summarise(plans, problem.quality_name)}


def _tuned(problem: PruningProblem, splits: Splits, settings: RunConfig, widths: list[int]) -> dict[str, Any]:
    """One plan's reward, and its quality on the test set after fine-tuning on images outside all other sets."""
    trial = problem.attempt(np.array(widths), "fidelity")
    network = problem.evaluator.pruned(trial.plan)
    few = replace(splits, train_indices=splits.train_indices[: settings.fidelity.images])
    train_network(
        network, few, settings.fidelity.training(), settings.seed, device_of(settings), problem.evaluator.task
    )
    network.to(problem.evaluator.device)
    return {
        "widths": widths,
        "reward": trial.reward,
        trial.quality_name: trial.outcome.quality,
        "tuned": measure(network, test_batches(problem.evaluator, splits), problem.evaluator.task).quality,
    }


def summarise(plans: Sequence[dict[str, Any]], quality: str) -> dict[str, Any]:
    """Spearman's rank correlation between reward and quality after fine-tuning, with its bootstrap interval.

    Args:
        plans: Records with ``reward``, the quality and ``tuned``.
        quality: The task's name for its quality.

    Returns:
        The correlation (None if all rewards or all qualities are equal), and the mean qualities before and after.
    """
    rewards, tuned = (np.array([plan[key] for plan in plans]) for key in ("reward", "tuned"))
    found = rank_correlation(rewards, tuned)
    return {
        "plans": len(plans),
        "spearman": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        quality: float(np.mean([plan[quality] for plan in plans])),
        "tuned": float(tuned.mean()),
        "best_by_reward_tuned": float(tuned[rewards.argmax()]),
        "best_tuned": float(tuned.max()),
    }


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation, and its 95 % bootstrap interval over plans; None where all plans are equal."""

    value: float | None
    low: float | None
    high: float | None


def rank_correlation(predicted: Array, tuned: Array) -> RankCorrelation:
    """Spearman's rank correlation of two numbers of the same plans, [plans] each."""
    from scipy.stats import DegenerateDataWarning, bootstrap  # here, because the import takes a second

    # scipy warns of resamples without a correlation, in which all plans are equal.
    with warnings.catch_warnings(action="ignore", category=DegenerateDataWarning):
        resampled = bootstrap(
            (predicted, tuned),
            _correlation,
            n_resamples=RESAMPLES,
            vectorized=False,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    finite = resampled[np.isfinite(resampled)]
    low, high = np.quantile(finite, (0.025, 0.975)) if len(finite) else (None, None)
    value = _correlation(predicted, tuned)
    return RankCorrelation(
        value if np.isfinite(value) else None,
        None if low is None else float(low),
        None if high is None else float(high),
    )


def _correlation(rewards: Array, tuned: Array) -> float:
    """Spearman's rank correlation; NaN if all rewards or all qualities are equal."""
    from scipy.stats import spearmanr  # here, because the import takes a second

    if min(np.ptp(rewards), np.ptp(tuned)) == 0.0:
        return float("nan")
    return float(spearmanr(rewards, tuned).statistic)
