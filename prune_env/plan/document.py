"""The pruning plan: which channels stay, as a small readable file that any machine can check and apply.

The format is JSON, version 3 [our choice]. A plan is complete: a fingerprint of every module identifies the network,
and each unit lists the channels that stay and the places that they occupy. Applying a plan therefore needs no
tracing. A digest of the units and their places shows that nothing was lost or changed there; the kept channels may be
changed by hand. Version 2 had no digest, and version 1 a separate field for its only kind of edit; both are still read.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, SerializeAsAny, ValidationError, field_validator
from torch import nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.files import atomic_write
from prune_env.common.records import DIGEST, Record, digest_of, rule_of, strict_json
from prune_env.common.text import shorten
from prune_env.plan.apply import apply_plan
from prune_env.plan.edits import EDITS, Edit, edits_from
from prune_env.plan.records import PlannedBudget, PlannedCosts, PlannedUnit

PLAN_VERSION: Literal[3] = 3


class PruningPlan(Record):
    """The channels of each unit of one network that stay, and the edits of its layers.

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

    version: Literal[3] = PLAN_VERSION
    units: list[PlannedUnit]
    edits: dict[str, dict[str, SerializeAsAny[Edit]]] = Field(default_factory=dict)
    costs: PlannedCosts
    budget: PlannedBudget | None = None
    provenance: dict[str, str | int | float | None] = Field(default_factory=dict)
    fingerprint: dict[str, str]

    @property
    def widths(self) -> dict[str, int]:
        """The number of channels of each unit that stay."""
        return {unit.name: len(unit.kept) for unit in self.units}

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """The channels of each unit that stay, ascending."""
        return {unit.name: tuple(unit.kept) for unit in self.units}

    @property
    def by_layer(self) -> dict[str, Edit]:
        """The edits of all kinds, by layer."""
        return {name: edit for layers in self.edits.values() for name, edit in layers.items()}

    @property
    def groups(self) -> dict[str, int]:
        """The group count of each edited layer; all other layers keep their groups."""
        return {name: edit.groups for name, edit in self.by_layer.items()}

    @property
    def digest(self) -> str:
        """A hash of the units and of the places that their channels occupy; the kept channels are not in it."""
        units = self.model_dump(include={"units": {"__all__": {"name", "channels", "protected", "members"}}})
        return digest_of(units)

    @field_validator("edits", mode="before")
    @classmethod
    def _known_edits(cls, value: Any) -> dict[str, dict[str, Edit]]:
        return edits_from(value)

    @field_validator("units")
    @classmethod
    def _named_once(cls, value: list[PlannedUnit]) -> list[PlannedUnit]:
        counts = Counter(unit.name for unit in value)
        if repeated := next((name for name, count in counts.items() if count > 1), None):
            raise ValueError(f"two units are named {shorten(repr(repeated))}")
        return value

    def removed_channels(self) -> dict[tuple[str, str], IntArray]:
        """Returns the module's channels that are cut, for each (module, side) that is cut."""
        removed: dict[tuple[str, str], list[IntArray]] = {}
        for unit in self.units:
            cut = np.setdiff1d(np.arange(unit.channels), unit.kept)
            if len(cut):
                for member in unit.members:
                    places = member.channels(unit.channels)[cut].ravel()
                    removed.setdefault((member.module, member.side), []).append(places)
        return {place: np.concatenate(parts) for place, parts in removed.items()}

    def costing(self, costs: PlannedCosts) -> "PruningPlan":
        """Returns the plan with other costs; updates ``budget.achieved`` unless the budget is a latency."""
        budget = self.budget
        if budget is not None and budget.metric != "latency":
            share = getattr(costs, budget.metric) / getattr(costs, f"dense_{budget.metric}")
            budget = budget.model_copy(update={"achieved": share})
        return self.model_copy(update={"costs": costs, "budget": budget})

    def apply(self, model: nn.Module) -> nn.Module:
        """Cuts a copy of a network as the plan says.

        Args:
            model: The dense network that the plan was made for, with any weights; it is left untouched.

        Returns:
            A new, physically smaller module. With batch-norm statistics untouched, its outputs equal those of the
            dense network with the cut channels zeroed wherever they are read, to 1e-4 relative, in float32.

        Raises:
            PlanMismatchError: If the plan was made for another network; names the first module that differs.
            PlanError: If the plan contradicts itself or names channels or layers that the network does not have.
        """
        return apply_plan(self, model)

    def diff(self, other: "PruningPlan") -> dict[str, tuple[int | None, int | None]]:
        """Returns the units whose widths differ, and the layers whose edits differ.

        Args:
            other: The plan to compare with.

        Returns:
            For each unit whose width differs: name -> (width here, width in ``other``; 0 for no such unit). For each
            edit that differs: ``LAYER: KIND`` -> (`Edit.size` here, `Edit.size` in ``other``; None for no such edit).
            Two equal sizes stand for edits of one size that choose otherwise.
        """
        theirs = other.widths
        different: dict[str, tuple[int | None, int | None]] = {
            name: (width, theirs.get(name, 0)) for name, width in self.widths.items() if theirs.get(name) != width
        }
        for kind in dict.fromkeys([*self.edits, *other.edits]):
            mine, others = self.edits.get(kind, {}), other.edits.get(kind, {})
            for name in dict.fromkeys([*mine, *others]):
                if mine.get(name) != others.get(name):
                    different[f"{name}: {kind}"] = _size(mine.get(name)), _size(others.get(name))
        return different

    def to_json(self) -> bytes:
        """Returns the plan as the bytes of its file."""
        document = self.model_dump(exclude_defaults=True)
        return (_dump({"version": self.version, DIGEST: self.digest, **document}) + "\n").encode()

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        atomic_write(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads and validates a plan.

        Raises:
            PlanError: If the file is missing, is not a plan, was damaged, or has a version that this release does not
                read.
        """
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            raise PlanError(f"There is no plan at {path}. A run writes its plan to RUN/plan.json.") from None
        except OSError as error:
            raise PlanError(f"{path} is not a plan: it cannot be read ({error.strerror or error}).") from None
        return cls.from_json(data, str(path))

    @classmethod
    def from_json(cls, data: bytes, source: str = "The plan") -> Self:
        """Reads and validates the bytes of a plan's file.

        Args:
            data: The bytes, as `to_json` returns them.
            source: The name of the file, for messages.

        Raises:
            PlanError: As `load`.
        """
        try:
            document = strict_json(data)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{source} is not a plan: it cannot be read as JSON ({error}).") from None
        if not isinstance(document, dict) or "version" not in document:
            raise PlanError(f"{source} is not a plan: a plan is a JSON object with a field 'version'.")
        version = document["version"]
        if type(version) is not int or not 1 <= version <= PLAN_VERSION:
            raise PlanError(
                f"{source} is a plan of version {shorten(repr(version))}; this release reads versions 1 to "
                f"{PLAN_VERSION}. Use the release that wrote it, or make a new plan."
            )
        digest = document.pop(DIGEST, None) if version == PLAN_VERSION else None
        try:
            plan = cls.model_validate(_upgraded(document))
        except ValidationError as error:
            raise PlanError(f"{source} is not a valid plan:\n{_problems(error)}") from None
        if version == PLAN_VERSION and digest != plan.digest:
            raise PlanError(
                f"{source} is damaged or was changed: {DIGEST} is {shorten(repr(digest))}, but its units and members "
                f"have {plan.digest!r}. Restore the file from a copy, or make a new plan."
            )
        return plan


def _size(edit: Edit | None) -> int | None:
    return None if edit is None else edit.size


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Converts the document of an earlier version; version 1 had a field of its own for each kind of edit."""
    # Version 1 has no field 'edits': leave such a document to the validation, which refuses its version.
    if document["version"] == 1 and "edits" not in document:
        fields = {edit.version_1_field: kind for kind in EDITS if (edit := EDITS.find(kind)).version_1_field}
        edits = {fields[name]: document[name] for name in fields if document.get(name)}
        document = {
            **{key: value for key, value in document.items() if key not in fields},
            "version": 2,
            "edits": edits,
        }
    return {**document, "version": PLAN_VERSION} if document["version"] == 2 else document


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False)[:5]:
        place = ".".join(str(part) for part in problem["loc"]) or "plan"
        lines.append(f"  {shorten(place)}: {shorten(rule_of(problem), 240)}")
    return "\n".join(lines)


def _dump(value: Any, indent: int = 0) -> str:
    """Formats JSON with one line per record and per list of numbers, so that plans are easy to read and to diff."""
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value and (indent < 2 or all(isinstance(item, dict) for item in value.values())):
        rows = [f"{pad}{json.dumps(key)}: {_dump(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    if isinstance(value, dict) and "members" in value:
        rows = [f"{pad}{json.dumps(key)}: {_dump(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = [pad + _dump(item, indent + 1) for item in value]
        return "[\n" + ",\n".join(rows) + "]"
    return json.dumps(value)
