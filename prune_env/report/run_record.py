"""What a report shows of one run, finished or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan

from prune_env.config import RunConfig
from prune_env.config.sections import budget_in_words
from prune_env.env.problem_record import ProblemRecord, UnitRecord
from prune_env.granularity import Granularity
from prune_env.granularity.base import Series
from prune_env.plan import PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.recover import Epoch
from prune_env.report.figures import Tried
from prune_env.runs.summaries import RowRecord, Summary, TrainingSummary
from prune_env.tasks import Metric


@dataclass(frozen=True)
class PlanTried:
    """One tried plan, from a line of ``evaluations.jsonl``.

    Attributes:
        number: How many evaluations the search had spent with it, as `prune-env compare` counts: the uniform plan, the
            first trial of every run, is 0, and probes count.
        proposed_by: Who proposed it: probe, uniform, or the search's name.
        reward: The reward.
        quality: Quality on the reward set in [0, 1]; nan if only a part of the set was evaluated.
        loss: Mean loss on the reward set.
        macs: MACs as a share of the dense network's.
        params: Params as a share of the dense network's.
        latency: Seconds by the formula; None if neither budget nor reward asks for it.
        seconds: Seconds of the measurement.
        cached: Whether an earlier trial had the outcome.
        widths: The width of each free unit.
        series: The granularity's own numbers.
    """

    number: int
    proposed_by: str
    reward: float
    quality: float
    loss: float
    macs: float
    params: float
    latency: float | None
    seconds: float
    cached: bool
    widths: tuple[int, ...]
    series: Series

    @property
    def complete(self) -> bool:
        """Whether the whole reward set was evaluated, so that the quality is known."""
        return isfinite(self.quality)


@dataclass(frozen=True)
class TrainingRecord:
    """A fine-tuning of the run, or its sparse training.

    Attributes:
        name: Name of the folder.
        planned: Epochs of the whole training.
        epochs: The epochs so far.
        summary: The result; None while the training runs.
    """

    name: str
    planned: int
    epochs: Sequence[Epoch]
    summary: TrainingSummary | None

    @property
    def tuned(self) -> RowRecord | None:
        """The row of the fine-tuned network, named after the folder if that is not the usual one."""
        if self.summary is None:
            return None
        row = self.summary.rows[-1]
        return row if self.name == "finetune" else row.model_copy(update={"name": f"{row.name} ({self.name})"})


@dataclass(frozen=True)
class RunRecord:
    """A run, finished or not.

    Attributes:
        name: Name of its folder.
        config: The settings.
        summary: The result in numbers; None while the search runs.
        metric: The task's quality.
        problem: The dense network and the units.
        plan: The best plan so far; None before the first.
        trials: All tried plans in the order of the proposals.
        granularity: The granularity, with the measurements of the run.
        trainings: The fine-tunings.
        sparsified: The sparse training before the search; None without one.
        rivals: The best reward so far of the other searches of the same comparison, by search: one number for each
            evaluation from 0 on.
        sensitivity: The evidence for sensitive layers; None if ``sensitivity.enabled`` was off.
        pictures: The networks' outputs on a few images as a PNG; None if the task draws no pictures.
        settings: The text of ``config.yaml``.
        versions: Versions of the packages that made the run.
    """

    name: str
    config: RunConfig
    summary: Summary | None
    metric: Metric
    problem: ProblemRecord
    plan: PruningPlan | None
    trials: Sequence[PlanTried]
    granularity: Granularity
    trainings: Sequence[TrainingRecord]
    sparsified: TrainingRecord | None
    rivals: Mapping[str, Sequence[float]]
    sensitivity: SensitivityReport | None
    pictures: bytes | None
    settings: str
    versions: Mapping[str, str]

    @property
    def search(self) -> str:
        """The search's name."""
        return self.config.agent.name

    @property
    def title(self) -> str:
        """The model and its budget in words."""
        return f"{self.config.model.name} at {self.budget}"

    @property
    def budget(self) -> str:
        """The budget in words."""
        return budget_in_words(self.limits)

    @property
    def limits(self) -> dict[str, float]:
        """The shares of the dense costs that may remain, by metric."""
        budget = self.config.budget
        return {str(budget.metric): budget.keep, **{str(metric): keep for metric, keep in budget.also.items()}}

    @property
    def free(self) -> list[UnitRecord]:
        """The free units, in forward order."""
        return [unit for unit in self.problem.units if unit.protected is None]

    @cached_property
    def rows(self) -> list[RowRecord]:
        """The measured networks: dense, uniform, the search's best, and the fine-tuned ones; empty if none yet."""
        tuned = [training.tuned for training in self.trainings]
        first: Sequence[RowRecord] = self.summary.rows if self.summary is not None else ()
        if self.summary is None:
            # A run with a plan but without a search: its trainings have measured the dense and the cut network.
            first = next((training.summary.rows[:-1] for training in self.trainings if training.summary), ())
        return [*first, *(row for row in tuned if row is not None)]

    def row(self, name: str) -> RowRecord | None:
        """The measured network with this name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def best(self) -> PlanTried | None:
        """The search's best trial so far; None before its first."""
        own = [trial for trial in self.trials if trial.proposed_by == self.search]
        return max(own, key=lambda trial: trial.reward, default=None)

    @property
    def uniform(self) -> Mapping[str, int] | None:
        """Widths of the uniform plan by free unit; None if it was not tried."""
        for trial in self.trials:
            if trial.proposed_by == "uniform":
                return dict(zip((unit.name for unit in self.free), trial.widths, strict=True))
        return None

    @property
    def tried(self) -> list[Tried]:
        """All tried plans for the pictures, the dense network first if its quality is known."""
        tried = [Tried(trial.proposed_by, trial.reward, trial.quality, trial.macs) for trial in self.trials]
        dense = self.dense_quality
        return tried if dense is None else [Tried("dense", nan, dense, 1.0), *tried]

    @property
    def dense_quality(self) -> float | None:
        """The dense network's quality on the reward set; None if not known yet."""
        row = self.row("dense")
        return self.problem.dense.quality if row is None else row.reward_quality
