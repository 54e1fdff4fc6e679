"""The problem: one network, one budget, and everything that a search needs to try plans and get their rewards."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel
from prune_env.common.arrays import IntArray
from prune_env.common.errors import EvaluationError, RunError
from prune_env.criteria import ScoringContext
from prune_env.env.observation import Observer, UnitEvidence
from prune_env.env.trial import Trial
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionChoice
from prune_env.evaluation.measuring import StopEarly
from prune_env.evaluation.racing import Race
from prune_env.granularity import Granularity, PlanBuilder
from prune_env.plan import PlannedBudget, PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.tasks import quality_of
from prune_env.walk import LayerWalk, Scores
from rewards import Outcome, Reward, RewardError


@dataclass
class PruningProblem:
    """A network with a budget, an evaluator and a reward; every search runs on a problem.

    Attributes:
        walk: The network's walk, sensitive units protected.
        budget: The cost that a plan may have.
        evaluator: Measures the plans.
        scores: One score per channel of each unit.
        reward: Computes the reward of an outcome.
        report: The evidence for the sensitive layers; None if ``sensitivity.enabled`` is off.
        input_size: Height and width of the network's input in pixels.
        context: The network and the images, as criteria receive them.
        race: Stops evaluating a plan that can no longer become the best of its search; None evaluates all images.
        execution_choice: How the evaluator's execution settings were chosen; None if they were not.
        granularity: The granularity, prepared for the network.
        latency: The formula that computes latency from the widths; None if neither budget nor reward needs it.
        probe_keep: The keep ratio of the probes that measure the rise of the loss; None for no probes.
        provenance: Facts to record in every plan.
        listeners: Called with each trial.
        recorded_trials: The records of an interrupted run (`Trial.as_record`). The first trials take their outcomes
            from these records and must propose the same plans.
        trials: Number of trials so far.
        baseline: The dense network's outcome.
    """

    walk: LayerWalk
    budget: Budget
    evaluator: Evaluator
    scores: Scores
    reward: Reward
    report: SensitivityReport | None
    input_size: tuple[int, int]
    context: ScoringContext
    granularity: Granularity
    latency: LatencyModel | None = None
    probe_keep: float | None = None
    race: Race | None = None
    execution_choice: ExecutionChoice | None = None
    provenance: dict[str, str | int | float | None] = field(default_factory=dict)
    listeners: list[Callable[[Trial], None]] = field(default_factory=list)
    recorded_trials: Sequence[Mapping[str, Any]] = ()
    trials: int = 0

    def __post_init__(self) -> None:
        self.baseline = self._priced(self.evaluator.dense(), self.walk.plan({}))

    def again(self) -> Self:
        """The same problem without trials or listeners, for another search.

        The evaluator keeps its cache, except with racing: the images that a race evaluates depend on the search.
        """
        race = self.race.again(self.evaluator) if self.race is not None else None
        return replace(self, race=race, listeners=[], recorded_trials=(), trials=0)

    @property
    def quality_name(self) -> str:
        """The task's name for its quality, as in files and TensorBoard."""
        return quality_of(self.context.task).name

    @property
    def probes(self) -> int:
        """Number of trials for the evidence in the observations: one for each free unit, or none."""
        return len(self.budget.units) if self.probe_keep is not None else 0

    @cached_property
    def observer(self) -> Observer:
        """Builds observations. The first access runs the probes."""
        ranks = self.report.by_unit() if self.report else {}
        evidence = UnitEvidence(ranks, self.loss_rises if self.probe_keep is not None else {})
        return Observer(self.walk, self.budget, evidence, self.input_size)

    def attempt(self, widths: IntArray, proposed_by: str) -> Trial:
        """Measures one set of widths.

        Args:
            widths: int64 [free units].
            proposed_by: Who proposes the plan.

        Returns:
            As `attempt_plan`.
        """
        return self.attempt_plan(self.plan(widths), proposed_by)

    def attempt_plan(self, plan: PruningPlan, proposed_by: str) -> Trial:
        """Measures one plan.

        Args:
            plan: A plan for the problem's network.
            proposed_by: Who proposes the plan.

        Returns:
            The trial, after the listeners were called with it.

        Raises:
            EvaluationError: If the quality, the loss or the reward is not finite.
            RunError: If `recorded_trials` holds another plan at this position.
        """
        started, hits = time.perf_counter(), self.evaluator.hits
        recalled = self.recalling
        if recalled:
            outcome = self._recall(plan, proposed_by)
        else:
            outcome = self.evaluator.evaluate(plan, self._stop_early(plan, proposed_by))
        outcome = self._priced(outcome, plan)
        try:
            reward = self.reward(outcome, self.baseline)
        except RewardError as error:
            raise EvaluationError(str(error)) from None
        trial = Trial(
            number=self.trials,
            proposed_by=proposed_by,
            plan=plan,
            outcome=outcome,
            reward=reward,
            cached=bool(self.recorded_trials[self.trials]["cached"]) if recalled else self.evaluator.hits > hits,
            seconds=float(self.recorded_trials[self.trials]["seconds"]) if recalled else time.perf_counter() - started,
            quality_name=self.quality_name,
            recalled=recalled,
            edits=self.granularity.record(plan),
        )
        self.trials += 1
        if self.race is not None:
            self.race.hear(trial)
        for listener in self.listeners:
            listener(trial)
        return trial

    @property
    def recalling(self) -> bool:
        """Whether the next trial is a recorded one."""
        return self.trials < len(self.recorded_trials)

    def _recall(self, plan: PruningPlan, proposed_by: str) -> Outcome:
        """Returns the recorded outcome of the next trial and puts it into the evaluator's cache."""
        row = self.recorded_trials[self.trials]
        if missing := {"kind", "widths", self.quality_name, "loss", "images", "cached", "seconds"} - row.keys():
            raise RunError(
                f"evaluation {self.trials} of the run has no {', '.join(sorted(missing))}: the run was made by another "
                "release, or its evaluations.jsonl is damaged. Start a new run."
            )
        widths = {unit.name: plan.widths[unit.name] for unit in self.budget.units}
        edits = self.granularity.record(plan)
        recorded, proposed = (row["widths"], {key: row.get(key) for key in edits}), (widths, edits)
        if row["kind"] != proposed_by or recorded != proposed:
            raise RunError(
                f"evaluation {self.trials} of the run was {row['kind']!r} with {_in_words(*recorded)}, but the resumed "
                f"search proposes {proposed_by!r} with {_in_words(*proposed)}. The run was made on another machine, "
                "with another release or with other weights, and cannot be resumed here. Start a new run."
            )
        outcome = Outcome(row[self.quality_name], row["loss"], plan.costs.macs, plan.costs.params, images=row["images"])
        self.evaluator.remember(plan, outcome)
        return outcome

    def _stop_early(self, plan: PruningPlan, proposed_by: str) -> StopEarly | None:
        if self.race is None:
            return None
        costs = self._priced(replace(self.baseline, macs=plan.costs.macs, params=plan.costs.params), plan)
        return self.race.rule(proposed_by, costs, self.baseline)

    def _seconds(self, plan: PruningPlan) -> float | None:
        if self.latency is None:
            return None
        return self.latency.seconds(self.walk, [plan.widths[unit.name] for unit in self.walk.units])

    def _priced(self, outcome: Outcome, plan: PruningPlan) -> Outcome:
        """Adds the plan's latency to the outcome."""
        return replace(outcome, latency=self._seconds(plan))

    def plan(self, widths: IntArray) -> PruningPlan:
        """The plan that keeps the best-scored channels at these widths, int64 [free units]."""
        share = min(1.0, self.budget.cost(widths) / self.budget.dense)
        return self.walk.plan(self.budget.names(widths), self.scores, self._planned_budget(share), self.provenance)

    def built_plan(self, builder: PlanBuilder) -> PruningPlan:
        """The plan of a finished builder."""
        kept = {name: [int(channel) for channel in channels] for name, channels in builder.kept.items()}
        return self.walk.plan_keeping(kept, builder.edits, self._planned_budget(builder.share), self.provenance)

    def _planned_budget(self, share: float) -> PlannedBudget:
        return PlannedBudget(metric=self.budget.metric, keep=self.budget.keep, achieved=share)

    @cached_property
    def loss_rises(self) -> dict[str, float]:
        """Rise of the loss in nats when a free unit alone is cut to ``probe_keep``, by unit name; one trial each."""
        rises = {}
        for number, unit in enumerate(self.budget.units):
            widths = self.budget.channels.copy()
            widths[number] = self.budget.allowed(number, (self.probe_keep or 0.0) * unit.channels)
            rises[unit.name] = self.attempt(widths, "probe").outcome.loss - self.baseline.loss
        return rises


def _in_words(widths: Mapping[str, int], edits: Mapping[str, Any]) -> str:
    made = {name: value for name, value in edits.items() if value is not None}
    return f"the widths {widths}" + (f" and the edits {made}" if made else "")
