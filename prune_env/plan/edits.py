"""Edits: changes to one layer beyond whole channels, as data in the plan.

A granularity registers its kind of edit here. The plan file, surgery and the evaluator treat all kinds alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from prune_env.common.arrays import IntArray
from prune_env.common.errors import PlanError, suggest
from prune_env.common.records import Record, first_problem
from prune_env.common.registry import Registry
from prune_env.surgery.channels import Sides


class Edit(Record, ABC):
    """A change to one layer beyond whole channels. All channels are numbered as in the dense network.

    Attributes:
        kind: The name under which a plan holds this kind of edit.
        version_1_field: The field of version 1 plans that held this kind of edit; None for newer kinds.
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
            PlanError: If the edit does not fit; names the layer and the reason.
        """

    @abstractmethod
    def weights(self, kernel: int, inputs: int, outputs: int) -> int:
        """Returns the number of elements of the edited layer's weight tensor.

        Args:
            kernel: Elements of one kernel, for example 9 for 3 x 3.
            inputs: How many input channels of the layer stay.
            outputs: How many output channels of the layer stay.
        """

    def order(self) -> IntArray | None:
        """Returns the output channels in the order in which the edited layer computes them; None for ascending."""
        return None

    @abstractmethod
    def masked(
        self, module: nn.Module, sides: Sides, cut: Callable[[Sides], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Returns the layer's tensors for the evaluator: in the cut layer's shape, with removed weights set to zero.

        Args:
            module: The dense layer.
            sides: The channels that stay, in order, by cut side.
            cut: Returns the layer's sliced and repaired tensors for the sides that it is given.
        """

    @abstractmethod
    def module(self, layer: nn.Module, ins: IntArray, outs: IntArray) -> nn.Module:
        """Returns the physically smaller layer.

        Args:
            layer: The cut layer, with masked tensors.
            ins: Input channels that stay, in order.
            outs: Output channels that stay, in order.
        """

    @property
    def groups(self) -> int:
        """The group count of the edited layer, as in torch's ``groups``."""
        return 1

    @property
    def size(self) -> int:
        """The number that `PruningPlan.diff` shows for the edit; 1 for a kind that counts nothing."""
        return 1


Edits = Mapping[str, Edit]
"""Edits by layer."""

NO_EDITS: Edits = MappingProxyType({})

EDITS: Registry[type[Edit]] = Registry("kind of edit", "edits", PlanError, home="prune_env.granularity")


def register_edit(edit: type[Edit]) -> type[Edit]:
    """Registers a kind of edit for plan files, under its ``kind``."""
    EDITS.add(edit.kind, edit)
    return edit


def edits_from(documents: Any) -> dict[str, dict[str, Edit]]:
    """Reads edits, by kind and layer, from a plan's document.

    Raises:
        ValueError: If a kind is unknown, a layer is edited twice, or an edit is not valid; names the kind or the layer.
    """
    if not isinstance(documents, Mapping):
        raise ValueError(f"must be a mapping of kinds of edits, not {type(documents).__name__}")
    edits: dict[str, dict[str, Edit]] = {}
    owners: dict[str, str] = {}
    for kind, layers in documents.items():
        if kind not in EDITS:
            raise ValueError(f"there is no kind of edit {kind!r}; {suggest(kind, EDITS)}")
        if not isinstance(layers, Mapping):
            raise ValueError(f"edits of kind {kind!r} must be a mapping of layers, not {type(layers).__name__}")
        edits[kind] = {}
        for name, record in layers.items():
            if owners.setdefault(name, kind) != kind:
                raise ValueError(f"layer {name!r} has edits of kind {owners[name]!r} and {kind!r}; one is allowed")
            edits[kind][name] = _edit_from(kind, name, record)
    return edits


def _edit_from(kind: str, name: str, record: Any) -> Edit:
    if isinstance(record, Edit):
        return record
    try:
        return EDITS.find(kind).model_validate(record)
    except ValueError as error:
        raise ValueError(f"{kind}, layer {name!r}: {first_problem(error)}") from None
