"""Edits: what a granularity does to one layer beyond whole channels, as data in the plan.

A granularity registers its kind of edit here. The plan file, the surgery and the evaluator read all kinds alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError
from prune_env.common.registry import Registry
from prune_env.plan.records import Frozen
from prune_env.surgery.channels import Sides


class Edit(Frozen, ABC):
    """What is done to one layer. All channels are numbered as in the dense network.

    Attributes:
        kind: The name under which a plan holds this kind of edit.
        version_1_field: The field that held it in plans of version 1; None where there was none.
    """

    kind: ClassVar[str]
    version_1_field: ClassVar[str | None] = None

    @abstractmethod
    def validate_on(self, model: nn.Module, name: str, ins: IntArray, outs: IntArray) -> None:
        """Refuses a layer that the edit does not fit.

        Args:
            model: The dense network.
            name: The layer's dotted name; the network has it.
            ins: Input channels that stay, ascending.
            outs: Output channels that stay, ascending.

        Raises:
            PlanError: Names the layer, and says what is wrong.
        """

    @abstractmethod
    def weights(self, kernel: int, inputs: int, outputs: int) -> int:
        """Elements of the edited layer's weight tensor.

        Args:
            kernel: Elements of one kernel, for example 9 for 3 x 3.
            inputs: How many input channels of the layer stay.
            outputs: How many output channels of the layer stay.
        """

    def order(self) -> IntArray | None:
        """The output channels in the order in which the edited layer computes them; None for ascending order."""
        return None

    @abstractmethod
    def masked(
        self, module: nn.Module, sides: Sides, cut: Callable[[Sides], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The layer's tensors as the evaluator runs them: of the cut layer's shape, zero where the edit takes away.

        Args:
            module: The dense layer.
            sides: For each side that is cut, the channels that stay, in order.
            cut: The layer's tensors at given sides, sliced and repaired.
        """

    @abstractmethod
    def module(self, layer: nn.Module, ins: IntArray, outs: IntArray) -> nn.Module:
        """The physically smaller layer.

        Args:
            layer: The cut layer, with masked tensors.
            ins: Input channels that stay, in order.
            outs: Output channels that stay, in order.
        """

    @property
    def groups(self) -> int:
        """How many groups the edited layer has, in torch's sense."""
        return 1


Edits = Mapping[str, Edit]
"""Edits by layer."""

NO_EDITS: Edits = MappingProxyType({})

EDITS: Registry[type[Edit]] = Registry("kind of edit", "edits", PlanError)


def register_edit(edit: type[Edit]) -> type[Edit]:
    """Makes a kind of edit known to plan files, under its ``kind``."""
    EDITS.add(edit.kind, edit)
    return edit


def edits_from(documents: Any) -> dict[str, dict[str, Edit]]:
    """Edits by kind and layer, read from a plan's document.

    Raises:
        ValueError: If a kind is not known, a layer is edited twice, or an edit is not valid; names the layer.
    """
    if not isinstance(documents, Mapping):
        raise ValueError("must be a mapping of kinds of edits")
    found: dict[str, dict[str, Edit]] = {}
    owners: dict[str, str] = {}
    for kind, layers in documents.items():
        if kind not in EDITS or not isinstance(layers, Mapping):
            known = ", ".join(EDITS) or "none"
            raise ValueError(f"{kind!r} is not a mapping of layers by a known kind of edit (known: {known})")
        found[kind] = {}
        for name, record in layers.items():
            if owners.setdefault(name, kind) != kind:
                raise ValueError(f"layer {name!r} has edits of kind {owners[name]!r} and {kind!r}; one is allowed")
            found[kind][name] = _edit_from(kind, name, record)
    return found


def _edit_from(kind: str, name: str, record: Any) -> Edit:
    if isinstance(record, Edit):
        return record
    try:
        return EDITS.find(kind).model_validate(record)
    except ValueError as error:
        raise ValueError(f"{kind}, layer {name!r}: {first_problem(error)}") from None


def first_problem(error: ValueError) -> str:
    """The first thing that pydantic found wrong, on one line."""
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    first = problems(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
