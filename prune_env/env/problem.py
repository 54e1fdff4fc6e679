"""The problem: one network, one budget, and everything that a search needs to try plans and get their rewards."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isclose
from typing import Any, Self

from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel
from prune_env.common.arrays import IntArray
from prune_env.common.errors import EvaluationError, RunError
from prune_env.common.text import quoted
from prune_env.criteria import ScoringContext
from prune_env.env.observation import Observer, UnitEvidence
from prune_env.env.planner import Planner
from prune_env.env.proposal import Proposal
from prune_env.env.trial import Measured, MeasuredRecord, Trial, TrialRecord
from prune_env.evaluation.evaluator import Evaluator, plan_key, reusable
from prune_env.evaluation.execution import ExecutionChoice
from prune_env.evaluation.measuring import StopEarly
from prune_env.evaluation.racing import Bound, Race
from prune_env.granularity import Granularity, PlanBuilder
from prune_env.plan import PruningPlan
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.rewards import Outcome, Reward, RewardError
from prune_env.tasks import quality_of
from prune_env.walk import LayerWalk, Scores


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
        recorded_trials: The records of an interrupted run. The first trials take their outcomes from these records;
            they must propose the same plans and get the same rewards.
        took: Seconds that measuring a plan took, by `plan_key`; shared with the problems of other searches (`again`).
        trials: Number of trials so far.
        outcomes: The last outcome of each plan that this problem has tried, by `plan_key`.
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
    recorded_trials: Sequence[TrialRecord] = ()
    took: dict[bytes, float] = field(default_factory=dict)
    trials: int = 0

    def __post_init__(self) -> None:
        dense, plan = self.evaluator.dense(), self.walk.plan({})
        self.baseline = self._priced(dense, plan)
        self.outcomes: dict[bytes, Outcome] = {plan_key(plan): dense}

    def again(self) -> Self:
        """The same problem without trials or listeners, for another search.

        The evaluator keeps its cache, except with racing: the images that a race evaluates depend on the search.
        """
        race = self.race.again(self.evaluator) if self.race is not None else None
        took = self.took if race is None else {}
        return replace(self, race=race, listeners=[], recorded_trials=(), took=took, trials=0)

    @property
    def planner(self) -> Planner:
        """Makes the plans of proposals."""
        return Planner(self.walk, self.budget, self.scores, self.granularity, self.provenance)

    @property
    def quality_name(self) -> str:
        """The task's name for its quality, as in files and TensorBoard."""
        return quality_of(self.context.task).name

    def as_record(self) -> dict[str, Any]:
        """The problem in numbers, for ``problem.json``.

        Returns:
            ``dense``: the dense network's outcome on the reward set. ``units``: for each unit in forward order its
            name, its channels, why it is protected (or None), and for each metric the share of the dense cost that
            its cut to the least width saves, if no other unit is cut; 0 for a protected unit.
        """
        dense = self.baseline
        least = self.budget.names(self.budget.least)

        def saved(name: str) -> dict[str, float]:
            cut = {name: least[name]} if name in least else {}
            return {
                "macs": 1.0 - self.walk.macs(cut) / dense.macs,
                "params": 1.0 - self.walk.params(cut) / dense.params,
            }

        return {
            "dense": {
                self.quality_name: dense.quality,
                "loss": dense.loss,
                "macs": dense.macs,
                "params": dense.params,
                "latency": dense.latency,
            },
            "units": [
                {"name": unit.name, "channels": unit.channels, "protected": unit.protected, "saves": saved(unit.name)}
                for unit in self.walk.units
            ],
        }

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
        stop_early = None if self.recalling else self.stop_early(plan, proposed_by)
        measured = None if self.recalling else self.measure(plan, stop_early)
        return self.conclude(plan, proposed_by, measured, self.is_known(plan, stop_early))

    def measure(self, plan: PruningPlan, stop_early: StopEarly | None) -> Measured:
        """Measures a plan in this process, or finds its outcome in the evaluator's cache.

        Seconds are those of the measurement, also where another search of the same problem made it: a search's seconds
        must not depend on the searches before it.
        """
        started, key = time.perf_counter(), plan_key(plan)
        earlier = self.took.get(key) if key not in self.outcomes else None
        outcome = self.evaluator.evaluate(plan, stop_early)
        seconds = time.perf_counter() - started
        self.took.setdefault(key, seconds)
        return Measured(outcome, seconds) if earlier is None else Measured(outcome, earlier, borrowed=True)

    def remember(self, plan: PruningPlan, measured: Measured) -> None:
        """Puts a measurement of a worker where `measure` finds it."""
        self.evaluator.remember(plan, measured.outcome)
        self.took.setdefault(plan_key(plan), measured.seconds)

    def is_known(self, plan: PruningPlan, stop_early: StopEarly | None) -> bool:
        """Whether an earlier trial of this problem has the outcome of a plan."""
        known = self.outcomes.get(plan_key(plan))
        return known is not None and reusable(known, stop_early)

    def conclude(self, plan: PruningPlan, proposed_by: str, measured: Measured | None, cached: bool = False) -> Trial:
        """Makes the next trial of a plan whose outcome is measured or recorded, and calls the listeners.

        Args:
            plan: The plan.
            proposed_by: Who proposes the plan.
            measured: The measurement; None takes the next of `recorded_trials`.
            cached: Whether an earlier trial has the outcome; not read for a recorded trial.

        Raises:
            EvaluationError: As `attempt_plan`.
            RunError: As `attempt_plan`.
        """
        recalled = measured is None
        if measured is None:
            measured = self._recall(plan, proposed_by)
            cached = self.recorded_trials[self.trials].cached
        self.outcomes[plan_key(plan)] = measured.outcome
        outcome = self._priced(measured.outcome, plan)
        try:
            reward = self.reward(outcome, self.baseline)
        except RewardError as error:
            raise EvaluationError(str(error)) from None
        if recalled:
            _check_values(self.recorded_trials[self.trials], self.trials, outcome, reward)
        trial = Trial(
            number=self.trials,
            proposed_by=proposed_by,
            plan=plan,
            outcome=outcome,
            reward=reward,
            cached=cached,
            seconds=measured.seconds,
            quality_name=self.quality_name,
            recalled=recalled,
            borrowed=measured.borrowed,
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

    def _recall(self, plan: PruningPlan, proposed_by: str) -> Measured:
        """Returns the recorded outcome of the next trial and puts it into the evaluator's cache."""
        measured = self.recorded(self.recorded_trials[self.trials], self.trials, plan, proposed_by)
        self.evaluator.remember(plan, measured.outcome)
        return measured

    def recorded(self, row: MeasuredRecord, number: int, plan: PruningPlan, proposed_by: str) -> Measured:
        """Takes the measurement of a plan from its record.

        Args:
            row: The record.
            number: Number of the trial.
            plan: The plan that the search proposes at this position.
            proposed_by: Who proposes it.

        Raises:
            RunError: If the record is of another plan.
        """
        edits = self.granularity.record(plan)
        proposed = {
            "kind": proposed_by,
            "widths": {unit.name: plan.widths[unit.name] for unit in self.budget.units},
            **edits,
        }
        recorded = {"kind": row.kind, "widths": row.widths, **{key: row.edits.get(key) for key in edits}}
        if recorded != proposed:
            raise RunError(
                f"evaluation {number} of the run is of another plan than the resumed search proposes: "
                f"{_differences(recorded, proposed)}. The run was made on another machine, with another release or "
                "with other weights, and cannot be resumed here. Start a new run."
            )
        outcome = Outcome(row.quality, row.loss, plan.costs.macs, plan.costs.params, images=row.images)
        return Measured(outcome, row.seconds)

    def stop_early(self, plan: PruningPlan, proposed_by: str) -> Bound | None:
        """When to stop measuring a plan, by the trials so far; None for never."""
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
        return self.planner.of_widths(widths)

    def built_plan(self, builder: PlanBuilder) -> PruningPlan:
        """The plan of a finished builder."""
        return self.planner.of_builder(builder)

    def probe_proposals(self) -> list[Proposal]:
        """One proposal for each free unit: this unit alone is cut to ``probe_keep``."""
        proposals = []
        for number, unit in enumerate(self.budget.units):
            widths = self.budget.channels.copy()
            widths[number] = self.budget.allowed(number, (self.probe_keep or 0.0) * unit.channels)
            proposals.append(Proposal(widths))
        return proposals

    def rises_of(self, probes: Sequence[Trial]) -> dict[str, float]:
        """Rise of the loss in nats for each free unit, by unit name, from the trials of `probe_proposals`."""
        names = (unit.name for unit in self.budget.units)
        return {name: trial.outcome.loss - self.baseline.loss for name, trial in zip(names, probes, strict=True)}

    @property
    def probed(self) -> bool:
        """Whether `loss_rises` are known, so that reading them tries nothing."""
        return "loss_rises" in vars(self)

    @cached_property
    def loss_rises(self) -> dict[str, float]:
        """Rise of the loss in nats when a free unit alone is cut to ``probe_keep``, by unit name; one trial each."""
        return self.rises_of([self.attempt_plan(self.planner.plan(one), "probe") for one in self.probe_proposals()])


def _check_values(row: TrialRecord, number: int, outcome: Outcome, reward: float) -> None:
    """Refuses a record whose reward and costs are not those of its plan and outcome.

    Raises:
        RunError: Names the value.
    """
    recorded = {"reward": row.reward, "macs": row.macs, "params": row.params, "latency": row.latency}
    computed = {"reward": reward, "macs": outcome.macs, "params": outcome.params, "latency": outcome.latency}
    for name, value in computed.items():
        given = recorded[name]
        same = given == value if given is None or value is None else isclose(given, value, rel_tol=1e-6, abs_tol=1e-12)
        if not same:
            raise RunError(
                f"evaluation {number} of the run has the {name} {given}, but its plan and its outcome give {value}. "
                "evaluations.jsonl was changed, or the run was made with other weights, on another machine or by "
                f"another release. {row.remedy}"
            )


def _differences(recorded: Mapping[str, Any], proposed: Mapping[str, Any]) -> str:
    """Where two records differ, the first five places, such as "widths of conv1: 8 recorded, 12 proposed"."""
    there, here = _by_place(recorded), _by_place(proposed)
    places = [place for place in {**there, **here} if there.get(place) != here.get(place)]
    told = [f"{place}: {quoted(there.get(place))} recorded, {here.get(place)!r} proposed" for place in places[:5]]
    return "; ".join(told) + (f"; and {len(places) - 5} more" if len(places) > 5 else "")


def _by_place(record: Mapping[str, Any]) -> dict[str, Any]:
    places: dict[str, Any] = {}
    for key, value in record.items():
        places |= {f"{key} of {name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return places
