"""Who owns a tensor: the layer of a weight, the holder of one number a channel, the attribute that holds a size."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from prune_env.common.arrays import Side
from prune_env.common.layers import is_layer, is_standard, tensor_axis

Place = tuple[str, Side]
"""Where channels are held: (module, side)."""


@dataclass(frozen=True)
class Weight:
    """The weight of a convolution or linear layer; ``transposed`` after a transposition of a linear layer's."""

    layers: tuple[str, ...]
    transposed: bool = False


class Owners:
    """The tensors of a network, by what a cut has to do with them.

    Attributes:
        modules: The network's modules by dotted name.
        weights: The layers that own a weight. Tied layers own the same one.
        holders: Tensors with one number a channel: the tensor, its axis of channels, and its (module, side) places.
        approximate: Whether channels may be cut where this changes what stays.
    """

    def __init__(self, model: nn.Module, approximate: bool = False) -> None:
        self.modules = dict(model.named_modules())
        self.weights = WeakTensorKeyDictionary()
        self.approximate = approximate
        holders: dict[int, tuple[Tensor, int, tuple[Place, ...]]] = {}
        for name, module in self.modules.items():
            for key, tensor in _own_tensors(module):
                axis = tensor_axis(tensor)
                if is_layer(module) and key == "weight":
                    known = self.weight_of(tensor)
                    self.weights[tensor] = Weight((*(known.layers if known else ()), name))
                elif axis is not None and tensor.is_floating_point() and key not in ("in", "out"):
                    whole = key == "bias" if is_layer(module) else is_standard(module)
                    place = (name, "out" if whole else key)
                    others = holders.get(id(tensor), (tensor, axis, ()))[2]
                    holders[id(tensor)] = (tensor, axis, (*others, place))
        self.holders = tuple(holders.values())

    def weight_of(self, tensor: Tensor) -> Weight | None:
        """Returns the weight that a tensor is; None if it is no layer's weight."""
        found: Weight | None = self.weights.get(tensor)
        return found

    def group_norm_of(self, module: str) -> bool:
        """Whether a module is a group norm that surgery can cut in whole groups."""
        return isinstance(self.modules.get(module), nn.GroupNorm)

    def size_attribute(self, module: str, value: int | list[int], operation: str | None = None) -> str | None:
        """Finds the attribute of a module that its code reads and that holds this size, or this list of sizes.

        Code that splits channels by ``self.splits`` or slices them at ``self.in_channels`` follows a cut if the
        attribute follows it. Only attributes whose name the module's own methods mention are considered [our choice].

        Args:
            module: The module's dotted name.
            value: The size or sizes.
            operation: The operation that reads the attribute; its name must be mentioned, too. None for any.
        """
        owner = self.modules.get(module)
        if owner is None:
            return None
        mentioned = _names_in_code(type(owner))
        if operation is not None and operation not in mentioned:
            return None
        for name, held in vars(owner).items():
            sizes = type(held) is int or (type(held) in (list, tuple) and all(type(size) is int for size in held))
            same = sizes and (held == value if type(held) is int else list(held) == value)
            if same and name in mentioned and not name.startswith("_"):
                return name
        return None


def _own_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    tensors = {**module._parameters, **module._buffers}
    return [(name, tensor) for name, tensor in tensors.items() if tensor is not None]


def _names_in_code(kind: type) -> set[str]:
    names: set[str] = set()
    for base in kind.__mro__:
        if base is nn.Module:
            break
        for value in vars(base).values():
            names |= _names_in(getattr(value, "__code__", None))
    return names


def _names_in(code: Any) -> set[str]:
    if code is None:
        return set()
    nested = [_names_in(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return set(code.co_names).union(*nested)
