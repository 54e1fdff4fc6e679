"""The file ``problem.json`` of a run: what a search starts from, in numbers."""

from functools import cache
from typing import Self

from pydantic import Field, create_model

from prune_env.common.ranges import Count, Latency, Quality
from prune_env.common.records import Record, renamed
from prune_env.plan import PruningPlan


class DenseRecord(Record):
    """The dense network: its outcome on the reward set (None if not known); latency in seconds.

    In the file, `quality` has the task's name for it.
    """

    quality: Quality | None = None
    loss: float | None = None
    macs: Count
    params: Count
    latency: Latency | None = None


class UnitRecord(Record):
    """One unit.

    Attributes:
        name: The unit's name.
        channels: Its channels in the dense network.
        protected: Why it is protected; None for a free unit.
        saves: By metric the share of the dense cost that its cut to the least width saves; empty if not known.
    """

    name: str
    channels: Count
    protected: str | None = None
    saves: dict[str, float] = Field(default_factory=dict)


class ProblemRecord(Record):
    """The whole file, as `prune_env.env.problem.PruningProblem.as_record`; runs of earlier releases have none."""

    dense: DenseRecord
    units: list[UnitRecord]

    @classmethod
    def of_plan(cls, plan: PruningPlan) -> Self:
        """What a plan says about its problem: the units, but neither the dense network's quality nor savings."""
        dense = DenseRecord(macs=plan.costs.dense_macs, params=plan.costs.dense_params)
        named = ((unit.name, unit.channels, unit.protected) for unit in plan.units)
        return cls(dense=dense, units=[UnitRecord(name=n, channels=c, protected=why) for n, c, why in named])


@cache
def problem_record(quality: str) -> type[ProblemRecord]:
    """Returns the class of the file, in which the quality has the task's name."""
    return create_model("ProblemRecord", __base__=ProblemRecord, dense=(renamed(DenseRecord, quality=quality), ...))
