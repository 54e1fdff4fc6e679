"""Whether a granularity keeps the promises that the environment, the evaluator, plan files and reports rely on."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prune_env.common.randomness import global_randomness
from prune_env.common.records import checked, to_file
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.env.problem import PruningProblem
from prune_env.granularity import Granularity, PlanBuilder
from prune_env.granularity.base import Numbers
from prune_env.plan import PruningPlan
from prune_env.testing.counts import counted_macs, counted_params
from prune_env.testing.networks import small_images, small_problem
from prune_env.testing.promises import Snapshot, explained, require

PLANS = 12
"""Plans that are made of random actions, for each meaning of an action."""

TOLERANCE = 1e-4
"""How far outputs may differ, as a share of the largest."""


def check_granularity(granularity: str | type[Granularity], settings: Mapping[str, Any] | None = None) -> None:
    """Checks that a granularity keeps its promises, on a small residual network; takes seconds.

    Whatever an agent's actions are, the finished plan is within the budget. The same actions give the same plan. The
    plan's costs are those of the network that `PruningPlan.apply` makes, integer for integer, and the evaluator sees
    the same network. Plans can be written and read again. Demonstrations meet the budget. What TensorBoard, the report
    and policy files are given is finite, and JSON can hold it. The dense network is left as it is.

    Args:
        granularity: A registered name, ``package.module:class``, or the class itself.
        settings: Its section of a configuration, without the name.

    Raises:
        AssertionError: Says which promise is broken.
        ConfigError: If there is no such granularity, or a setting does not fit.

    Example:
        >>> from prune_env.testing import check_granularity
        >>> check_granularity("channel", {"action": "ratio"})
    """
    with _named(granularity) as name:
        document = {
            "model": {"name": "small"},
            "data": {"name": "noise"},
            "granularity": {**(settings or {}), "name": name},
        }
        about = RunConfig.from_mapping(document).granularity
        what = f"granularity {name!r}"
        with global_randomness(0):
            with explained(f"{what} fails to prepare itself"):
                problem = small_problem(about)
            _Check(what, problem).run()


@contextmanager
def _named(granularity: str | type[Granularity]) -> Iterator[str]:
    """A name that finds the granularity within."""
    if isinstance(granularity, str):
        yield granularity
        return
    with GRANULARITIES.restored():
        if granularity.name not in GRANULARITIES:
            GRANULARITIES.add(granularity.name, granularity)
        yield granularity.name


@dataclass(frozen=True)
class _Check:
    """One prepared granularity on its problem."""

    what: str
    problem: PruningProblem

    @property
    def granularity(self) -> Granularity:
        return self.problem.granularity

    def run(self) -> None:
        before = Snapshot(self.problem.walk.model)
        self._check_words()
        for action in self.granularity.allowed_actions():
            self._check_action(self.granularity.with_action(action))
        self._check_demonstrations()
        changed = before.difference()
        require(changed is None, f"{self.what}: {changed}.")

    def _check_words(self) -> None:
        for key, value in self.granularity.limits().items():
            require(math.isfinite(value), f"{self.what}: its limit {key!r} is {value}. It must be finite.")
        measured, kind = self.granularity.measurements(), self.granularity.Measurements
        if measured is None:
            return
        if kind is None or not isinstance(measured, kind):
            raise AssertionError(
                f"{self.what} gives measurements of class {type(measured).__name__}, and its Measurements is {kind}. "
                "Name the class, a GranularityMeasurements, so that a run can keep and read them."
            )
        with explained(f"{self.what}: its measurements cannot be written and read"):
            self.granularity.restore(checked(json.loads(to_file(measured)), kind, kind.file))

    def _check_action(self, granularity: Granularity) -> None:
        action, dimensions = granularity.action, granularity.actions()
        numbers = granularity.action_numbers(action)
        require(
            numbers == len(dimensions),
            f"{self.what}: an action {action!r} has {len(dimensions)} numbers, and action_numbers says {numbers}.",
        )
        for dimension in dimensions:
            for value in (-1.0, -0.3, 0.0, 0.8, 1.0):
                back = dimension.encode(dimension.decode(value, 0.5), 0.5)
                require(
                    abs(back - value) < 1e-6,
                    f"{self.what}: {dimension.name!r} decodes {value} and encodes the result as {back}. encode must be "
                    "the inverse of decode.",
                )
        shape = (len(self.problem.budget.units), len(dimensions))
        random = np.random.default_rng(0).uniform(-1.0, 1.0, (PLANS, *shape))
        # Rounding and clipping go wrong at the ends first.
        for number, actions in enumerate((np.full(shape, -1.0), np.full(shape, 1.0), *random)):
            self._check_plan(granularity, actions, f"{self.what}, action {action!r}, plan {number}")

    def _check_plan(self, granularity: Granularity, actions: Numbers, place: str) -> None:
        with explained(f"{place} fails"):
            builder = self._built(granularity, actions, noise=0)
            plan = self.problem.built_plan(builder)
        again = self.problem.built_plan(self._built(granularity, actions, noise=1))
        require(plan == again, f"{place}: the same actions give another plan the second time.")
        budget = self.problem.budget
        require(
            plan.costs.macs <= budget.limit,
            f"{place}: the plan takes {plan.costs.macs} MACs, and {budget.limit} are allowed.",
        )
        require(not plan.edits or granularity.makes_edits, f"{place}: the plan has edits, and makes_edits is False.")
        self._check_network(plan, place)
        with explained(f"{place}: its plan cannot be written and read"):
            read = PruningPlan.from_json(plan.to_json())
        require(
            read == plan,
            f"{place}: the plan that is read is not the plan that was written. Check the edit's fields.",
        )
        record = self._through_json(granularity.record(plan), "its record")
        for family, series in granularity.series(record).items():
            finite = all(math.isfinite(value) for value in series.values())
            require(finite, f"{place}: its series {family!r} holds a number that is not finite.")
        for table in granularity.tables(1, plan):
            width = len(table.headings)
            require(
                all(len(row) == width for row in table.rows),
                f"{place}: the table {table.title!r} has {width} headings, and a row of another length.",
            )

    def _check_network(self, plan: PruningPlan, place: str) -> None:
        images, model = small_images(4, seed=5).images, self.problem.walk.model
        small = plan.apply(model)
        real = (counted_macs(small, images), counted_params(small))
        require(
            real == (plan.costs.macs, plan.costs.params),
            f"{place}: the plan says {plan.costs.macs} MACs and {plan.costs.params} params, and its network has "
            f"{real[0]} and {real[1]}. Check the edit's weights().",
        )
        with torch.no_grad():
            applied, seen = small.eval()(images), self.problem.evaluator.cut(plan)(images)
        apart = float((applied - seen).abs().max() / applied.abs().max().clamp(min=1e-12))
        require(
            apart <= TOLERANCE,
            f"{place}: the evaluator's network and that of plan.apply differ by {apart:.1e} of the largest output. "
            "The edit's masked() and module() must be the same layer.",
        )

    def _check_demonstrations(self) -> None:
        budget, size = self.problem.budget, (len(self.problem.budget.units), len(self.granularity.actions()))
        rules = [budget.uniform() / budget.channels, np.ones(len(budget.units))]
        shown = self.granularity.demonstrations(rules, budget)
        count = self.granularity.demonstration_count(len(rules), budget)
        require(
            len(shown) == count,
            f"{self.what} gives {len(shown)} demonstrations, and demonstration_count says {count}.",
        )
        for numbers in shown:
            require(
                numbers.shape == size,
                f"{self.what}: a demonstration has the shape {numbers.shape}. It must have one row for each free unit "
                f"and one column for each number of an action, here {size}.",
            )
            builder = self.granularity.builder(budget)
            for row in numbers:
                builder.decide([float(number) for number in row])
            macs = self.problem.built_plan(builder).costs.macs
            require(
                macs <= budget.limit, f"{self.what}: a demonstration takes {macs} MACs; {budget.limit} are allowed."
            )

    def _built(self, granularity: Granularity, actions: Numbers, noise: int) -> PlanBuilder:
        """A builder that has decided all units, while the global generators are seeded by ``noise``."""
        builder, dimensions = granularity.builder(self.problem.budget), granularity.actions()
        with global_randomness(noise):
            for action in actions:
                even = builder.even
                builder.decide([one.decode(float(value), even) for one, value in zip(dimensions, action, strict=True)])
                require(
                    0.0 < builder.previous <= 1.0,
                    f"{self.what}: its builder's previous is {builder.previous}. It must be in (0, 1].",
                )
        require(builder.finished, f"{self.what}: its builder is not finished after one decision for each unit.")
        return builder

    def _through_json(self, value: Any, what: str) -> Any:
        with explained(f"{self.what}: JSON cannot hold {what}"):
            return json.loads(json.dumps(value, allow_nan=False))
