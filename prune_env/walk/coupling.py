"""Finds coupled channels: reads units from Torch-Pruning's dependency graph.

No other file of the library imports torch_pruning, and this file uses it only for graph discovery. The graph is a
proposal: `prune_env.walk.proof` cuts every unit and compares before the unit is used.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch_pruning
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.dependency import index_mapping

from prune_env.common.arrays import IntArray
from prune_env.common.errors import ModelError
from prune_env.common.layers import Convolution, channels_of, cuts_itself, is_depthwise
from prune_env.walk.unit import Member, Unit

Cuttable = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.PReLU)


def has_channels(module: nn.Module | None) -> bool:
    """Whether a module has channels of its own that a unit can run through."""
    return isinstance(module, Cuttable) or cuts_itself(module)


class _Coupled(Exception):  # noqa: N818
    """Raised if coupled channels cannot be cut; the message becomes the reason for the protection."""


def find_units(model: nn.Module, example_input: Tensor, order: Sequence[str]) -> list[Unit]:
    """Finds the network's units in forward order; units that cannot be cut are protected, with the reason.

    Args:
        model: The network in eval mode, with parameters that require gradients. Tracing runs the network once.
        example_input: A batch of inputs.
        order: Names of the convolutions and linear layers in the order in which the forward pass calls them.

    Returns:
        The units, not yet proved. Members of free units do not overlap.
    """
    modules = dict(model.named_modules())
    graph, barriers = _build_graph(model, example_input)
    claimed: dict[str, set[int]] = {}
    units: list[Unit] = []
    for name in order:
        if modules[name] not in graph.module2node or claimed.get(name):
            continue
        unit = _unit_from(name, modules, graph, barriers)
        for member in unit.members:
            if member.side == "out":
                claimed.setdefault(member.module, set()).update(member.index.ravel().tolist())
        units.append(unit)
    return without_overlaps(units)


def _build_graph(model: nn.Module, example_input: Tensor) -> tuple[Any, set[Any]]:
    """Returns the dependency graph and the barriers: the nodes through which channels cannot be followed."""
    graph = torch_pruning.DependencyGraph()
    own = {type(module): _OwnSizes() for module in model.modules() if cuts_itself(module)}
    try:
        graph.build_dependency(model, example_input, customized_pruners=own, verbose=False)
    except (ArithmeticError, TypeError) as error:
        # Index maps come last, after the graph is complete. A map that Torch-Pruning cannot compute raises here (a
        # channel shuffle, a concatenation with parts of unknown size); such nodes become barriers below.
        if not getattr(graph, "module2node", None):
            raise ModelError(
                f"Torch-Pruning cannot trace the network's dependency graph: {type(error).__name__}: {error}"
            ) from None
    barriers = {node for node in graph.module2node.values() if _reorders(graph, node)}
    for node in barriers:
        # The search for coupled channels may reach a barrier but must not cross it.
        node.type, node.dependencies = ops.OPTYPE.ELEMENTWISE, []
    index_mapping.update_index_mapping(graph)
    for node in graph.module2node.values():
        # The index maps are final. Without this, Torch-Pruning would compute all of them again for every group.
        node.type = ops.OPTYPE.ELEMENTWISE
    return graph, barriers


def _reorders(graph: Any, node: Any) -> bool:
    """Whether a node is a barrier: a reshape other than a flatten, or a concatenation with parts of unknown size."""
    if node.type == ops.OPTYPE.CONCAT:
        try:
            index_mapping.update_concat_index_mapping(graph, node)
        except TypeError:
            return True
        return None in (node.module.concat_sizes or ())
    if node.type != ops.OPTYPE.RESHAPE:
        return False
    if len(getattr(node.grad_fn, "_saved_self_sym_sizes", ())) > 4:
        return True
    try:
        index_mapping.update_reshape_index_mapping(graph, node)
    except ArithmeticError:
        return True
    return False


class _OwnSizes:
    """Describes modules that cut themselves (`keep_inputs`, `keep_outputs`) to Torch-Pruning."""

    pruning_dim = 1

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> None:
        """Never called; the method itself marks the output side."""

    def prune_in_channels(self, layer: nn.Module, idxs: Sequence[int]) -> None:
        """Never called; the method itself marks the input side."""

    def get_out_channels(self, layer: nn.Module) -> int:
        """Returns the number of channels that the module writes."""
        return channels_of(layer, "out")

    def get_in_channels(self, layer: nn.Module) -> int:
        """Returns the number of channels that the module reads."""
        return channels_of(layer, "in")


def _unit_from(name: str, modules: Mapping[str, nn.Module], graph: Any, barriers: set[Any]) -> Unit:
    """Returns the unit of a layer's output channels, protected if its coupled channels cannot be cut."""
    channels = channels_of(modules[name], "out")
    whole = Member(name, "out", np.arange(channels, dtype=np.int64)[:, None])
    try:
        members = list(_members(name, channels, modules, graph, barriers))
        for member in members:
            size = channels_of(modules[member.module], member.side)
            if member.index.max() >= size or len(np.unique(member.index)) < member.index.size:
                raise _Coupled(f"several of its channels meet in one channel of {member.module!r}")
        members = _merge_slots(members, channels, modules)
    except _Coupled as coupled:
        return Unit(name, channels, (whole,), protected=str(coupled))
    channels = len(members[0].index)
    reason = None
    if not any(member.side == "in" for member in members):
        reason = "its channels are the network's output"
    elif channels == 1:
        reason = "it has a single channel that can only be kept"
    return Unit(name, channels, tuple(members), protected=reason)


def _members(
    name: str, channels: int, modules: Mapping[str, nn.Module], graph: Any, barriers: set[Any]
) -> Iterator[Member]:
    names = {module: key for key, module in modules.items()}
    root = modules[name]
    handler = graph.get_pruner_of_module(root).prune_out_channels
    try:
        group = graph.get_pruning_group(root, handler, list(range(channels)))
    except (ArithmeticError, IndexError, TypeError) as error:
        raise _Coupled(f"its channels could not be followed through the graph ({type(error).__name__})") from None
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        if node in barriers:
            if isinstance(module, ops._ConcatOp):
                raise _Coupled("its channels meet a concatenation whose parts have unknown sizes")
            raise _Coupled("its channels pass through a reshape that reorders them (a channel shuffle)")
        if isinstance(module, nn.Parameter):
            raise _Coupled("its channels meet a bare parameter, whose channel dimension is unknown")
        if module not in names or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            continue
        if not has_channels(module):
            if next(module.parameters(recurse=False), None) is not None:
                raise _Coupled(f"its channels pass through {names[module]!r}, a {type(module).__name__}")
            continue
        index = _index_map(names[module], item.idxs, item.root_idxs, channels)
        if is_depthwise(module):
            yield Member(names[module], "out", index)
            yield Member(names[module], "in", index)
        elif isinstance(module, (*Convolution, nn.Linear)) or cuts_itself(module):
            out = item.dep.handler == graph.get_pruner_of_module(module).prune_out_channels
            yield Member(names[module], "out" if out else "in", index)
        else:
            yield Member(names[module], "out", index)


def _index_map(name: str, places: Sequence[int], roots: Sequence[int], channels: int) -> IntArray:
    """Returns the places of each root channel, [channels, r]; every channel must have the same number of places."""
    order = np.lexsort((places, roots))
    sorted_roots, sorted_places = np.asarray(roots)[order], np.asarray(places, dtype=np.int64)[order]
    repeat = len(places) // channels
    if repeat == 0 or not np.array_equal(sorted_roots, np.repeat(np.arange(channels), repeat)):
        raise _Coupled(f"only some of its channels reach {name!r}, which couples them unequally")
    return sorted_places.reshape(channels, repeat)


def _merge_slots(members: list[Member], channels: int, modules: Mapping[str, nn.Module]) -> list[Member]:
    """Merges channels in the same slot of a grouped convolution's groups into one unit channel.

    Every group must lose the same slots, so that all groups keep the same size [our choice].
    """
    label = np.arange(channels)
    for member in members:
        module = modules[member.module]
        groups = getattr(module, "groups", 1)
        if groups == 1 or is_depthwise(module):
            continue
        size = channels_of(module, member.side)
        if member.index.size != size:
            raise _Coupled(f"it fills only a part of the groups of {member.module!r}")
        slots = member.index % (size // groups)
        for slot in range(size // groups):
            touched = np.unique(label[(slots == slot).any(axis=1)])
            label[np.isin(label, touched)] = touched[0]
    _, label, counts = np.unique(label, return_inverse=True, return_counts=True)
    if len(counts) == channels:
        return members
    if counts.min() != counts.max():
        raise _Coupled("the grouped convolutions that it meets divide its channels unequally")
    order = np.argsort(label, kind="stable")
    return [Member(m.module, m.side, m.index[order].reshape(len(counts), -1)) for m in members]


def without_overlaps(units: list[Unit]) -> list[Unit]:
    """Protects all units that claim the same channel."""
    owners: dict[tuple[str, str, int], str] = {}
    clashes: dict[str, str] = {}
    for unit in units:
        for member in unit.members:
            if unit.protected is not None:
                continue
            for place in member.index.ravel().tolist():
                other = owners.setdefault((member.module, member.side, place), unit.name)
                if other != unit.name:
                    clashes[unit.name] = f"its coupling with {other!r} at {member.module!r} is ambiguous"
                    clashes[other] = f"its coupling with {unit.name!r} at {member.module!r} is ambiguous"
    return [Unit(unit.name, unit.channels, unit.members, clashes.get(unit.name, unit.protected)) for unit in units]
