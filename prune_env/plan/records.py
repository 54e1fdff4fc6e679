"""The records that a plan is made of."""

from collections import Counter
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from prune_env.common.arrays import IntArray
from prune_env.common.ranges import Count, CountFromZero, Share
from prune_env.common.records import Record


class PlannedMember(Record):
    """One side of one module that a unit runs through: ``in``, ``out``, or a tensor or size attribute by name.

    Unit channel i occupies the module's channels ``start + i * step + j * stride`` for j below ``repeat``. If the
    channels follow no such rule, ``index[i]`` lists them.
    """

    module: str
    side: str = Field(pattern=r"^[^.\s]{1,200}(\.\d+)?$")
    start: CountFromZero = 0
    step: Count = 1
    repeat: Count = 1
    stride: Count = 1
    index: list[list[int]] | None = None

    @classmethod
    def from_index(cls, module: str, side: str, index: IntArray) -> Self:
        """Builds the shortest record of an index map [channels, r]: a rule if one fits, else the map."""
        start = int(index[0, 0])
        step = int(index[1, 0] - start) if len(index) > 1 else 1
        stride = int(index[0, 1] - start) if index.shape[1] > 1 else 1
        rule = cls(
            module=module,
            side=side,
            start=start,
            step=max(step, 1),
            repeat=index.shape[1],
            stride=max(stride, 1),
        )
        if np.array_equal(rule.channels(len(index)), index):
            return rule
        return cls(module=module, side=side, index=index.tolist())

    def channels(self, count: int) -> IntArray:
        """Returns the index map, int64 [count, r]."""
        if self.index is not None:
            return np.asarray(self.index, dtype=np.int64).reshape(count, -1)
        rows = self.start + self.step * np.arange(count, dtype=np.int64)
        return rows[:, None] + self.stride * np.arange(self.repeat, dtype=np.int64)[None, :]

    def fits(self, count: int, size: int) -> bool:
        """Whether ``count`` unit channels lie within a module's ``size``; allocates nothing: counts may be hostile."""
        if self.index is not None:
            return all(0 <= place < size for row in self.index for place in row)
        last = self.start + self.step * (count - 1) + self.stride * (self.repeat - 1)
        return last < size and count * self.repeat <= size


class PlannedUnit(Record):
    """One unit: the channels that stay, and the places that its channels occupy."""

    name: str
    channels: Count
    kept: list[int] = Field(min_length=1)
    protected: str | None = None
    members: list[PlannedMember] = Field(min_length=1)

    @model_validator(mode="after")
    def _kept_channels_exist_once(self) -> Self:
        if self.kept == sorted(set(self.kept)) and self.kept[0] >= 0 and self.kept[-1] < self.channels:
            return self
        repeated = [channel for channel, count in Counter(self.kept).items() if count > 1]
        if repeated:
            raise ValueError(f"unit {self.name!r} keeps channel {min(repeated)} more than once; each may be named once")
        outside = [channel for channel in self.kept if not 0 <= channel < self.channels]
        if outside:
            raise ValueError(f"unit {self.name!r} keeps channel {outside[0]}; allowed are 0 to {self.channels - 1}")
        raise ValueError(f"unit {self.name!r}: kept channels must be in ascending order")

    @model_validator(mode="after")
    def _protected_is_whole(self) -> Self:
        if self.protected is not None and len(self.kept) < self.channels:
            raise ValueError(
                f"unit {self.name!r} is protected ({self.protected}) and keeps {len(self.kept)} of its {self.channels} "
                "channels; a protected unit keeps all"
            )
        return self

    @model_validator(mode="after")
    def _index_is_whole(self) -> Self:
        for member in self.members:
            if member.index is not None and (
                len(member.index) != self.channels
                or len({len(row) for row in member.index}) != 1
                or not member.index[0]
            ):
                raise ValueError(
                    f"unit {self.name!r}, member {member.module!r}: index must have {self.channels} equal rows"
                )
        return self


class PlannedBudget(Record):
    """The budget that the plan was made for and the cost that it achieves, as shares of the dense cost.

    ``also`` holds the shares that the plan had to meet besides, by metric; `PlannedCosts` has what it costs there.
    """

    metric: Literal["macs", "params", "latency"]
    keep: Share
    achieved: float = Field(ge=0, le=1)
    also: dict[Literal["macs", "params"], Share] = Field(default_factory=dict)


class PlannedCosts(Record):
    """Costs for one image, dense and pruned; MACs are multiply-adds of convolution and linear layers."""

    dense_macs: Count
    macs: Count
    dense_params: Count
    params: Count

    @model_validator(mode="after")
    def _nothing_grows(self) -> Self:
        for name, pruned, dense in (
            ("macs", self.macs, self.dense_macs),
            ("params", self.params, self.dense_params),
        ):
            if pruned > dense:
                raise ValueError(f"{name} is {pruned}; allowed are 1 to dense_{name}, which is {dense}")
        return self
