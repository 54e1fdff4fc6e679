"""The pruning plan: which channels stay, as a small readable file that any machine can check and apply.

The format is our choice: JSON, version 1, complete in itself. It names the network that it fits by a fingerprint of
every module, and for each unit says which channels stay and which places they occupy, so that applying it needs no
tracing.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.files import atomic_write
from prune_env.common.fingerprint import fingerprint as fingerprint
from prune_env.common.fingerprint import first_difference as first_difference
from prune_env.common.fingerprint import shorten

PLAN_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedMember(_Frozen):
    """One side of one module that a unit runs through.

    Unit channel i occupies the module's channels ``start + i * step + j * stride`` for j below ``repeat``, or
    ``index[i]`` where no such rule holds.
    """

    module: str
    side: Literal["in", "out"]
    start: int = Field(0, ge=0)
    step: int = Field(1, ge=1)
    repeat: int = Field(1, ge=1)
    stride: int = Field(1, ge=1)
    index: list[list[int]] | None = None

    @classmethod
    def from_index(cls, module: str, side: Literal["in", "out"], index: IntArray) -> Self:
        """The shortest form of an index map [channels, r]."""
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
        """The index map, int64 [count, r]."""
        if self.index is not None:
            return np.asarray(self.index, dtype=np.int64).reshape(count, -1)
        rows = self.start + self.step * np.arange(count, dtype=np.int64)
        return rows[:, None] + self.stride * np.arange(self.repeat, dtype=np.int64)[None, :]

    def fits(self, count: int, size: int) -> bool:
        """Whether the map of ``count`` unit channels stays within a module's ``size``; no large array is made."""
        if self.index is not None:
            return all(0 <= place < size for row in self.index for place in row)
        last = self.start + self.step * (count - 1) + self.stride * (self.repeat - 1)
        return last < size and count * self.repeat <= size


class PlannedUnit(_Frozen):
    """What stays of one unit."""

    name: str
    channels: int = Field(ge=1)
    kept: list[int] = Field(min_length=1)
    protected: str | None = None
    members: list[PlannedMember] = Field(min_length=1)

    @model_validator(mode="after")
    def _kept_channels_exist_once(self) -> Self:
        repeated = [channel for channel, count in Counter(self.kept).items() if count > 1]
        if repeated:
            raise ValueError(f"unit {self.name!r} keeps channel {min(repeated)} more than once; each may be named once")
        outside = [channel for channel in self.kept if not 0 <= channel < self.channels]
        if outside:
            raise ValueError(f"unit {self.name!r} keeps channel {outside[0]}; allowed are 0 to {self.channels - 1}")
        if self.kept != sorted(self.kept):
            raise ValueError(f"unit {self.name!r}: kept channels must be in ascending order")
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


class PlannedGroups(_Frozen):
    """The groups that one convolution falls into, in the order in which it computes them.

    Attributes:
        inputs: For each group the input channels that it reads, ascending, as the dense convolution numbers them.
        filters: For each group its output channels, by the same rule. Where all groups' are not ascending in a row,
            the unit that the convolution writes is put into their order, and all that reads it follows.
    """

    inputs: list[list[int]] = Field(min_length=1)
    filters: list[list[int]] = Field(min_length=1)

    @model_validator(mode="after")
    def _groups_are_alike(self) -> Self:
        if len(self.inputs) != len(self.filters):
            raise ValueError(f"inputs are given for {len(self.inputs)} groups and filters for {len(self.filters)}")
        for what, lists in (("inputs", self.inputs), ("filters", self.filters)):
            for number, channels in enumerate(lists):
                if channels != sorted(set(channels)) or not channels or channels[0] < 0:
                    raise ValueError(f"group {number}: {what} must be channels in ascending order, each once")
                if len(channels) != len(lists[0]):
                    raise ValueError(f"group {number} has {len(channels)} {what}, and group 0 {len(lists[0])}")
        repeated = [channel for channel, times in Counter(self.order).items() if times > 1]
        if repeated:
            raise ValueError(f"output channel {min(repeated)} is in more than one group")
        return self

    @property
    def order(self) -> list[int]:
        """All output channels as the groups follow each other."""
        return [channel for filters in self.filters for channel in filters]


class PlannedBudget(_Frozen):
    """The budget that the plan was made for and what it reaches, as shares of the dense cost."""

    metric: Literal["macs", "params", "latency"]
    keep: float = Field(gt=0, le=1)
    achieved: float = Field(ge=0, le=1)


class PlannedCosts(_Frozen):
    """Costs for one image, dense and pruned; MACs are multiply-adds of convolution and linear layers."""

    dense_macs: int = Field(ge=1)
    macs: int = Field(ge=1)
    dense_params: int = Field(ge=1)
    params: int = Field(ge=1)

    @model_validator(mode="after")
    def _nothing_grows(self) -> Self:
        for name, pruned, dense in (
            ("macs", self.macs, self.dense_macs),
            ("params", self.params, self.dense_params),
        ):
            if pruned > dense:
                raise ValueError(f"{name} is {pruned}; allowed are 1 to dense_{name}, which is {dense}")
        return self


class PruningPlan(_Frozen):
    """What stays of each unit of one network.

    Example:
        >>> from torch import nn
        >>> import torch
        >>> from prune_env import LayerWalk
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> walk = LayerWalk.trace(model, torch.zeros(1, 3, 8, 8))
        >>> plan = walk.plan({"0": 5})
        >>> plan.widths
        {'0': 5, '2': 4}
        >>> plan.apply(model)[0].out_channels
        5
    """

    version: Literal[1] = PLAN_VERSION
    units: list[PlannedUnit]
    grouped: dict[str, PlannedGroups] = Field(default_factory=dict)
    costs: PlannedCosts
    budget: PlannedBudget | None = None
    provenance: dict[str, str | int | float | None] = Field(default_factory=dict)
    fingerprint: dict[str, str]

    @property
    def widths(self) -> dict[str, int]:
        """How many channels of each unit stay."""
        return {unit.name: len(unit.kept) for unit in self.units}

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Which channels of each unit stay, ascending."""
        return {unit.name: tuple(unit.kept) for unit in self.units}

    @property
    def groups(self) -> dict[str, int]:
        """Into how many groups convolutions fall that are named here; all others keep theirs."""
        return {name: len(planned.inputs) for name, planned in self.grouped.items()}

    @property
    def reads(self) -> dict[str, int]:
        """How many input channels each group of these convolutions reads."""
        return {name: len(planned.inputs[0]) for name, planned in self.grouped.items()}

    def removed_channels(self) -> dict[tuple[str, str], IntArray]:
        """For each (module, side) that is cut: the module's channels that go."""
        removed: dict[tuple[str, str], list[IntArray]] = {}
        for unit in self.units:
            cut = np.setdiff1d(np.arange(unit.channels), unit.kept)
            if len(cut):
                for member in unit.members:
                    places = member.channels(unit.channels)[cut].ravel()
                    removed.setdefault((member.module, member.side), []).append(places)
        return {place: np.concatenate(parts) for place, parts in removed.items()}

    def costing(self, costs: PlannedCosts) -> "PruningPlan":
        """The plan with other costs; what it reaches of a budget follows, but for one of latency."""
        budget = self.budget
        if budget is not None and budget.metric != "latency":
            share = getattr(costs, budget.metric) / getattr(costs, f"dense_{budget.metric}")
            budget = budget.model_copy(update={"achieved": share})
        return self.model_copy(update={"costs": costs, "budget": budget})

    def apply(self, model: nn.Module) -> nn.Module:
        """Cuts a network down to the plan.

        Args:
            model: The dense network that the plan was made for, with any weights; it is left untouched.

        Returns:
            A new, physically smaller module. With batch-norm statistics untouched its outputs equal those of the
            dense network with the cut channels zeroed, to 1e-4 relative, in float32.

        Raises:
            PlanMismatchError: If the network is another one; names the first module that differs.
        """
        # The plan is at the bottom of the imports; only this convenience looks up.
        from prune_env.surgery import apply_plan

        return apply_plan(self, model)

    def diff(self, other: "PruningPlan") -> dict[str, tuple[int, int]]:
        """Units whose widths differ: name -> (width here, width there)."""
        theirs = other.widths
        return {name: (width, theirs.get(name, 0)) for name, width in self.widths.items() if theirs.get(name) != width}

    def to_json(self) -> bytes:
        """The plan as the bytes of its file."""
        document = self.model_dump(exclude_defaults=True)
        return (_dump({"version": self.version, **document}) + "\n").encode()

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        atomic_write(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads and validates a plan.

        Raises:
            PlanError: If the file is missing, is not a plan, or is of a version that this release does not know.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PlanError(f"There is no plan at {path}. A run writes its plan to RUN/plan.json.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise PlanError(f"{path} is not a plan: it cannot be read as JSON ({error}).") from None
        if not isinstance(document, dict) or "version" not in document:
            raise PlanError(f"{path} is not a plan: a plan is a JSON object with a field 'version'.")
        if type(document["version"]) is not int or document["version"] != PLAN_VERSION:
            raise PlanError(
                f"{path} is a plan of version {shorten(repr(document['version']))}; this release reads version "
                f"{PLAN_VERSION}. Use the release that wrote it, or make the plan anew."
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise PlanError(f"{path} is not a valid plan:\n{_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False)[:5]:
        place = ".".join(str(part) for part in problem["loc"]) or "plan"
        lines.append(f"  {shorten(place)}: {shorten(problem['msg'], 240)}")
    return "\n".join(lines)


def _dump(value: Any, indent: int = 0) -> str:
    """JSON with one line for each record and each list of numbers, so that a plan reads and diffs well."""
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value and indent < 2:
        rows = [f"{pad}{json.dumps(key)}: {_dump(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    if isinstance(value, dict) and "members" in value:
        rows = [f"{pad}{json.dumps(key)}: {_dump(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = [pad + _dump(item, indent + 1) for item in value]
        return "[\n" + ",\n".join(rows) + "]"
    return json.dumps(value)
