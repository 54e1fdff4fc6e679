"""The plans in flight: submitted in the order of their proposals, concluded in the same order."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.trial import ArrivedRecord, Measured, Trial
from prune_env.evaluation.evaluator import plan_key, reusable
from prune_env.plan import PruningPlan
from prune_env.search.pools import Order, Pool


class Journal(Protocol):
    """Keeps what comes out of its order, so that a kill loses nothing."""

    @property
    def arrived(self) -> Mapping[int, ArrivedRecord]:
        """The records of an interrupted run that are not among its trials, by the trial's number."""
        ...

    def keep(self, record: Mapping[str, Any]) -> None:
        """Writes the record of an outcome that came before its turn."""
        ...


@dataclass
class _Plane:
    """One plan in flight; ``leader`` is the earlier trial in flight whose outcome it may share."""

    order: Order
    plan: PruningPlan
    proposed_by: str
    leader: int | None = None
    cached: bool = False
    result: Measured | Exception | None = None


class Flight:
    """Measures plans in a pool, and makes their trials in the order in which the plans were proposed.

    A plan that an earlier proposal has had shares its outcome: known at once, or awaited if it is still in flight. So
    hits depend on the order of the proposals, never on who is first.

    Args:
        problem: The problem, whose listeners hear the trials.
        pool: Measures the plans.
        journal: Keeps outcomes that come before their turn; None for nothing.
    """

    def __init__(self, problem: PruningProblem, pool: Pool, journal: Journal | None = None) -> None:
        self.problem = problem
        self.pool = pool
        self.journal = journal
        self._planes: deque[_Plane] = deque()
        self._ordered = 0
        self._latest: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._planes)

    @property
    def ordered(self) -> int:
        """How many plans the pool is measuring now."""
        return self._ordered

    def submit(self, proposal: Proposal, proposed_by: str) -> None:
        """Starts to measure a proposal, unless its outcome is known.

        Args:
            proposal: The proposal.
            proposed_by: Who proposes it.

        Raises:
            RunError: If an interrupted run has another plan at this position.
        """
        problem, number = self.problem, self.problem.trials + len(self._planes)
        plan = problem.planner.plan(proposal)
        recorded = number < len(problem.recorded_trials)
        stop_early = None if recorded else problem.stop_early(plan, proposed_by)
        proposal = replace(proposal, plan=plan)
        plane = _Plane(Order(number, proposal, stop_early), plan, proposed_by)
        if recorded:
            plane.result = problem.recorded(problem.recorded_trials[number], number, plan, proposed_by)
        else:
            self._start(plane)
        self._planes.append(plane)
        self._latest[plan_key(plan)] = number

    def conclude(self) -> Trial:
        """Waits for the oldest plan, makes its trial and calls the listeners.

        Raises:
            EvaluationError: If the plan's measurement is not finite.
            RunError: If workers keep failing, or an interrupted run has another plan at this position.
        """
        plane, problem = self._planes[0], self.problem
        if plane.order.number != problem.trials:
            raise RuntimeError(
                f"{plane.proposed_by} has tried plans with PruningProblem.attempt. A search only proposes: it returns "
                "a Proposal from ask()."
            )
        while plane.result is None:
            self._land()
        self._planes.popleft()
        if self._latest.get(key := plan_key(plane.plan)) == plane.order.number:
            del self._latest[key]
        if isinstance(plane.result, Exception):
            raise plane.result
        measured = None if problem.recalling else plane.result
        return problem.conclude(plane.plan, plane.proposed_by, measured, plane.cached)

    def _start(self, plane: _Plane) -> None:
        """Finds the outcome of a plan, or the earlier trial that will have it, or orders its measurement."""
        order, problem = plane.order, self.problem
        kept = self.journal.arrived.get(order.number) if self.journal is not None else None
        plane.leader = self._latest.get(plan_key(plane.plan))
        if kept is not None:
            plane.result = problem.recorded(kept, order.number, plane.plan, plane.proposed_by)
            plane.cached = kept.cached
        elif plane.leader is not None:
            self._follow(plane)
        elif problem.is_known(plane.plan, order.stop_early):
            plane.result, plane.cached = Measured(problem.outcomes[plan_key(plane.plan)], 0.0), True
        elif problem.evaluator.known(plane.plan, order.stop_early) is not None:
            # Another search of the same problem has measured the plan.
            plane.result = problem.measure(plane.plan, order.stop_early)
        else:
            self._order(plane)

    def _order(self, plane: _Plane) -> None:
        self._ordered += 1
        self.pool.submit(plane.order)

    def _follow(self, plane: _Plane) -> None:
        """Shares the outcome of the leader once it is known; measures the plan if the leader was stopped too early."""
        leader = self._in_flight(plane.leader)
        if leader is None or leader.result is None:
            return
        shared = leader.result
        if isinstance(shared, Exception) or reusable(shared.outcome, plane.order.stop_early):
            plane.result, plane.cached = shared, True
            if isinstance(shared, Measured):
                plane.result = Measured(shared.outcome, 0.0)
        else:
            self._order(plane)
        plane.leader = None

    def _land(self) -> None:
        """Takes the next result from the pool."""
        arrival = self.pool.wait()
        self._ordered -= 1
        plane = self._in_flight(arrival.number)
        assert plane is not None
        plane.result = arrival.result
        if isinstance(arrival.result, Measured):
            self.problem.remember(plane.plan, arrival.result)
            if self.journal is not None and plane is not self._planes[0]:
                self.journal.keep(self._record(plane, arrival.result))
        for other in self._planes:
            if other.leader is not None:
                self._follow(other)

    def _record(self, plane: _Plane, measured: Measured) -> dict[str, Any]:
        """The record of an outcome before its turn: a trial's record without what depends on earlier trials."""
        problem, outcome = self.problem, measured.outcome
        return {
            "number": plane.order.number,
            "kind": plane.proposed_by,
            problem.quality_name: outcome.quality,
            "loss": outcome.loss,
            "images": outcome.images,
            "cached": False,
            "seconds": round(measured.seconds, 4),
            "widths": {unit.name: plane.plan.widths[unit.name] for unit in problem.budget.units},
            **{name: value for name, value in problem.granularity.record(plane.plan).items() if value is not None},
        }

    def _in_flight(self, number: int | None) -> _Plane | None:
        """The plan with this number; None if it is not in flight."""
        if number is None:
            return None
        place = number - self.problem.trials
        return self._planes[place] if 0 <= place < len(self._planes) else None
