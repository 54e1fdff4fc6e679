"""Residual streams: the units that several layers write by addition.

An addition adds up two maps. A walk back from both maps through autograd's graph finds the layers that meet in it: the
nearest ones that write channels of their own. A depthwise convolution passes channels on, and a multiplication (a gate)
adds nothing up, so neither makes a stream.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prune_env.common.copying import copied
from prune_env.common.hooks import watching
from prune_env.common.layers import is_depthwise, is_layer
from prune_env.walk.unit import Unit

ADDITIONS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__)

Layers = frozenset[str]


def residual_streams(model: nn.Module, units: Iterable[Unit], example_input: Tensor) -> dict[str, int]:
    """Finds the units that two or more convolutions or linear layers write by addition [our choice].

    Args:
        model: The network; it is copied and left untouched.
        units: The network's units.
        example_input: A batch of inputs [N, C, H, W]; only the first input is looked at.

    Returns:
        For each residual stream, by unit name in forward order, how many layers write it.
    """
    sums = _summed_layers(model, example_input[:1])
    streams = {}
    for unit in units:
        own = {member.module for member in unit.members if member.side == "out"}
        own = {name for name in own if _has_weights(model.get_submodule(name))}
        writers: set[str] = set()
        for left, right in sums:
            met = own & (left | right)
            # Two different layers must meet: a map that is added to itself makes no stream.
            if len(met) > 1 and own & left and own & right:
                writers |= met
        if writers:
            streams[unit.name] = len(writers)
    return streams


def _summed_layers(model: nn.Module, example_input: Tensor) -> list[tuple[Layers, Layers]]:
    """Finds, for both sides of each addition of a forward pass, the layers whose outputs reach it."""
    # The graph is read off the gradients, also where the caller has switched them off.
    with torch.inference_mode(mode=False), torch.enable_grad():
        probe = copied(model).eval().requires_grad_(True)
        return _observed_sums(probe, example_input.clone())


def _observed_sums(model: nn.Module, images: Tensor) -> list[tuple[Layers, Layers]]:
    writers: dict[Any, str] = {}

    def note(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        writers[output.grad_fn] = name

    # A module that renumbers channels (a zero-padding shortcut) ends a unit, so the walk back ends there too.
    names = [name for name, module in model.named_modules() if _has_weights(module) or hasattr(module, "keep_outputs")]
    additions = _Additions()
    with watching(model, names, after=note), additions:
        model(images)
    known: dict[Any, Layers] = {None: frozenset()}
    return [(_reaching(left, writers, known), _reaching(right, writers, known)) for left, right in additions.maps]


def _has_weights(module: nn.Module) -> bool:
    """Whether a layer computes channels from channels, rather than passing them on."""
    return is_layer(module) and not is_depthwise(module)


def _reaching(node: Any, writers: Mapping[Any, str], known: dict[Any, Layers]) -> Layers:
    """Finds the nearest layers behind a node of autograd's graph; ``known`` keeps what was found."""
    waiting = [node]
    while waiting:
        last = waiting[-1]
        sources = [] if last in known or last in writers else [source for source, _ in last.next_functions]
        missing = [source for source in sources if source not in known]
        if missing:
            waiting += missing
            continue
        if last not in known:
            own = [writers[last]] if last in writers else []
            known[last] = frozenset(own).union(*(known[source] for source in sources))
        waiting.pop()
    return known[node]


class _Additions(TorchFunctionMode):
    """Records the autograd nodes of both maps of each addition, before it runs: it may overwrite one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[tuple[Any, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in args if isinstance(value, Tensor)]
        if func in ADDITIONS and len(tensors) == 2:
            self.maps.append((tensors[0].grad_fn, tensors[1].grad_fn))
        return func(*args, **(kwargs or {}))
