"""A reshapable network: one copy of a network that takes the shape of one plan after another.

`PruningPlan.apply` makes a new network. `ReshapableNetwork` re-uses its modules and only slices tensors: no graph work,
no copy of the module tree, and no memory that grows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from prune_env.batch_norm.fast_norm import BatchNorm, Overwriting, is_plain
from prune_env.batch_norm.folding import FoldPair, fold_into
from prune_env.common.arrays import IntArray
from prune_env.common.copying import copied
from prune_env.common.layers import channels_of, cuts_itself, held_at, is_layer
from prune_env.surgery.channels import NO_MASKS, Mask, Masks, Repair, cut_tensors, set_sizes, size_attributes
from prune_env.walk.unit import Unit


@dataclass(frozen=True, eq=False)
class _Place:
    """One side of one module, and the units whose channels it holds."""

    module: str
    side: str
    size: int
    members: tuple[tuple[str, IntArray], ...]

    def kept(self, removed: Mapping[str, IntArray]) -> IntArray | None:
        """Returns the side's channels that stay, ascending; None if the side is not cut."""
        mask = None
        for unit, index in self.members:
            gone = removed.get(unit)
            if gone is not None:
                mask = np.ones(self.size, dtype=bool) if mask is None else mask
                mask[index[gone].ravel()] = False
        return None if mask is None else np.flatnonzero(mask)


class _Fold:
    """Folds one batch norm into its convolution, and undoes that."""

    def __init__(self, model: nn.Module, pair: FoldPair) -> None:
        parent, _, self.leaf = pair.norm.rpartition(".")
        self.holder = model.get_submodule(parent)
        self.conv = model.get_submodule(pair.conv)
        self.norm = model.get_submodule(pair.norm)
        self.identity = nn.Identity()

    def do(self) -> None:
        """Folds, and puts an identity in the batch norm's place."""
        fold_into(self.conv, self.norm)
        self.holder._modules[self.leaf] = self.identity

    def undo(self) -> None:
        """Puts the batch norm back; the next cut resets the convolution's tensors."""
        self.holder._modules[self.leaf] = self.norm


class _Overwrite:
    """Makes one batch norm overwrite its input, and undoes that; for statistics that stay unchanged in between."""

    def __init__(self, model: nn.Module, pair: FoldPair) -> None:
        self.norm = model.get_submodule(pair.norm)

    def do(self) -> None:
        """Sets the faster forward pass."""
        if is_plain(self.norm):
            assert isinstance(self.norm, BatchNorm)
            vars(self.norm)["forward"] = Overwriting(self.norm)

    def undo(self) -> None:
        """Restores the batch norm's own forward pass."""
        if isinstance(vars(self.norm).get("forward"), Overwriting):
            del vars(self.norm)["forward"]


class ReshapableNetwork:
    """A network that takes the shape of one plan after another.

    Args:
        model: The dense network, in the layout and on the device of the cut networks; it is not changed.
        units: The network's units.
        dtype: The number type of convolutions and linear layers; other modules keep theirs.
        pairs: The convolutions whose output only a batch norm reads; `settle` makes these batch norms faster.
        folded: Whether `settle` folds the batch norms into the convolutions or lets them overwrite their inputs.
        repair: Replaces the sliced weights of layers that read cut channels; None keeps the sliced weights.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        dtype: torch.dtype = torch.float32,
        pairs: tuple[FoldPair, ...] = (),
        folded: bool = True,
        repair: Repair | None = None,
    ) -> None:
        self._repair = repair
        self._dense = copied(model).eval().requires_grad_(False)
        for module in self._dense.modules():
            if is_layer(module):
                module.to(dtype)
        for module, side in {(self._dense.get_submodule(m.module), m.side) for unit in units for m in unit.members}:
            held = held_at(module, side)
            if isinstance(held, torch.Tensor) and held.is_floating_point():
                held.data = held.data.to(dtype)
        self.model = copied(self._dense)
        self._originals = dict(self._dense.named_modules())
        self._channels = {unit.name: unit.channels for unit in units}
        members: dict[tuple[str, str], list[tuple[str, IntArray]]] = {}
        for unit in units:
            for member in unit.members:
                members.setdefault((member.module, member.side), []).append((unit.name, member.index))
        self._places = tuple(
            _Place(name, side, channels_of(self._originals[name], side), tuple(parts))
            for (name, side), parts in members.items()
        )
        self._sizes: dict[str, set[str]] = {}
        for place in self._places:
            if isinstance(held_at(self._originals[place.module], place.side), int):
                self._sizes.setdefault(place.module, set()).add(place.side.partition(".")[0])
        # Also reset modules outside the units at each cut: folding and recalibration change their tensors.
        holders = (name for name, module in self._originals.items() if module._parameters or module._buffers)
        self._touched = dict.fromkeys((*(place.module for place in self._places), *holders))
        self._modules = {name: self.model.get_submodule(name) for name in self._touched}
        self._settled = tuple((_Fold if folded else _Overwrite)(self.model, pair) for pair in pairs)

    def cut(self, kept: Mapping[str, Sequence[int]], masks: Masks = NO_MASKS) -> nn.Module:
        """Gives the network the shape of a plan.

        Args:
            kept: For each unit the channels that stay, ascending; units that are not named are dense.
            masks: The edits beyond whole channels, by layer. Masked weights are zero here, which gives the same outputs
                as the edited layers without building new modules.

        Returns:
            The cut network with the dense network's batch-norm statistics, valid until the next cut.
        """
        removed = {
            name: np.setdiff1d(np.arange(self._channels[name]), channels, assume_unique=True)
            for name, channels in kept.items()
            if len(channels) < self._channels[name]
        }
        sides: dict[str, dict[str, IntArray]] = {name: {} for name in self._touched}
        for place in self._places:
            channels = place.kept(removed)
            if channels is not None:
                sides[place.module][place.side] = channels
        for settled in self._settled:
            settled.undo()
        for name, cut in sides.items():
            self._reshape(name, cut, masks.get(name))
        return self.model

    def settle(self) -> None:
        """Makes the forward pass faster, for batch-norm statistics that no longer change; the next cut undoes it."""
        for settled in self._settled:
            settled.do()

    def _reshape(self, name: str, sides: Mapping[str, IntArray], mask: Mask | None) -> None:
        dense = self._originals[name]
        if cuts_itself(dense):
            self._replace(name, copied(dense))
        module = self._modules[name]
        sliced = cut_tensors(name, dense, sides, self._repair, mask)
        for key, parameter in dense._parameters.items():
            values = None if parameter is None else sliced.get(key, parameter.data)
            module._parameters[key] = None if values is None else nn.Parameter(values, requires_grad=False)
        for key, buffer in dense._buffers.items():
            # Clone, because recalibration writes statistics in place and must not change the dense network's.
            module._buffers[key] = None if buffer is None else sliced.get(key, buffer).clone()
        for attribute in size_attributes(dense) | self._sizes.get(name, set()):
            setattr(module, attribute, getattr(dense, attribute))
        set_sizes(module, sides)

    def _replace(self, name: str, module: nn.Module) -> None:
        parent, _, leaf = name.rpartition(".")
        self.model.get_submodule(parent)._modules[leaf] = module
        self._modules[name] = module
