"""Follows channels through one forward pass: every tensor carries labels of its own shape beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from prune_env.common.decisions import decides
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution, Transposed, channels_of, cuts_itself
from prune_env.common.nested import tensors_of
from prune_env.walk.labels.call import Call, along
from prune_env.walk.labels.operations import WRITERS, constant, rule_for, unknown
from prune_env.walk.labels.owners import Owners, Place, Weight
from prune_env.walk.labels.ties import Labels, core
from prune_env.walk.shapes import LayerShape

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

KEEPS_A_WEIGHT = ("aten::detach", "aten::alias", "aten::_to_copy", "aten::lift_fresh")
"""Operations after which a weight is still the same weight."""


class Follower(TorchDispatchMode):
    """Carries labels through the operations of one forward pass.

    Attributes:
        labels: The ties and marks found.
        places: The labels of the channels at each place, by (module, side).
        writers: The layers that write channels of their own, in calling order.
        shapes: The output size of each convolution and linear layer, in calling order.
        macs: Multiply-adds that torch counts, by layer, or by operation and module.
        varying: What costs the same for each channel: the operation or layer, the multiply-adds of one channel, and the
            channels' labels.
        random: The first operation that draws random numbers; None if none does.
        decides: Whether the network sorts, selects or compares values.
    """

    def __init__(self, model: nn.Module, tick: Callable[[str], None], approximate: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = Labels(tick)
        self.owners = Owners(model, approximate)
        self.places: dict[tuple[str, str], Tensor] = {}
        self.writers: dict[str, None] = {}
        self.shapes: dict[str, LayerShape] = {}
        self.macs: dict[str, int] = {}
        self.varying: list[tuple[str, int, Tensor]] = []
        self.random: str | None = None
        self.decides = False
        self._tick = tick
        self._model = model
        self._known = WeakTensorKeyDictionary()
        self._stack: list[str] = []
        self._inside_own = 0
        for tensor, axis, places in self.owners.holders:
            labels = self._labels_at(places, tensor.shape[axis])
            shape = [1] * tensor.ndim
            shape[axis] = -1
            self._known[tensor] = labels.reshape(shape)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the context, calls of the network's modules and operations are followed."""
        names = [name for name, _ in self._model.named_modules()]
        with watching(self._model, names, before=self._enter, after=self._leave), torch.no_grad(), self:
            yield

    @contextmanager
    def without_costs(self) -> Iterator[Mapping[str, LayerShape]]:
        """Within the context, operations cost nothing; gives the shapes of the layers that are called in it."""
        before = self.shapes, self.macs, self.varying, self.random, self.decides
        self.shapes, self.macs, self.varying = {}, {}, []
        try:
            yield self.shapes
        finally:
            self.shapes, self.macs, self.varying, self.random, self.decides = before

    def outputs(self, value: Any) -> None:
        """Marks the labels that reach the network's outputs."""
        for tensor in tensors_of(value):
            labels = self.label_of(tensor)
            if labels is not None:
                self.labels.mark(labels, "its channels are the network's output")

    def label_of(self, tensor: Tensor) -> Tensor | None:
        """Returns a tensor's labels; None if it carries none."""
        found: Tensor | None = self._known.get(tensor)
        return found

    def bind(self, module: str, side: str, labels: Tensor) -> None:
        """Says which labels stand at the channels of one side of a module; labels of several calls are tied."""
        first = self.places.setdefault((module, side), labels)
        if first is not labels:
            self.labels.tie(first, labels)

    def written(self, owner: Weight, channels: int) -> Tensor:
        """Returns the labels that a layer writes: its own, the same at every call. A single channel is a constant."""
        for layer in owner.layers:
            self.writers.setdefault(layer)
        if channels == 1:  # the channel of a gate, which is never cut, must tie none of the channels that it gates
            return torch.zeros(1, dtype=torch.int64)
        return self._labels_at(tuple((layer, "out") for layer in owner.layers), channels)

    def count(self, owner: Weight, result: Tensor, positions: int) -> None:
        """Adds the positions at which one call of a layer applies its kernel."""
        name = self._layer_at_work(owner)
        before = self.shapes[name].positions if name in self.shapes else 0
        spatial = () if isinstance(self.owners.modules[name], nn.Linear) else result.shape[2:]
        height, width = (*spatial[-2:], 1, 1)[:2]
        self.shapes[name] = LayerShape(before + positions, int(height), int(width))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func.has_kernel_for_dispatch_key(COMPOSITE):
            with self:  # elsewhere, composite operations arrive in parts
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        call = Call(func, args, kwargs, result, self._stack[-1] if self._stack else "", self)
        if self._inside_own:
            self._count_inside(call)
        else:
            self._follow(call)
        return result

    def _follow(self, call: Call) -> None:
        self._tick(call.place)
        if torch.Tag.nondeterministic_seeded in call.function.tags and self.random is None:
            self.random = call.place
        self.decides = self.decides or decides(call.function)
        self._count_macs(call)
        if self._keeps_weight(call, call.tensors()):
            return
        labels = self._labels_after(call)
        results = [call.result] if isinstance(call.result, Tensor) else call.result
        if not isinstance(results, (list, tuple)):
            return
        labels = labels if isinstance(labels, list) else [labels]
        for tensor, own in zip(results, labels, strict=False):
            if isinstance(tensor, Tensor) and own is not None:
                self._set(tensor, own, in_place=call.name.endswith("_") and tensor is call.args[0])

    def _labels_after(self, call: Call) -> Any:
        """Applies the operation's rule; a form of the operation that the rule does not foresee is as one without."""
        if not any(self.label_of(tensor) is not None for tensor in call.tensors()):
            return constant(call) if rule_for(call.function) is constant else self._of_writer(call)
        try:
            return rule_for(call.function)(call)
        except (RuntimeError, IndexError, TypeError, ValueError, AttributeError):
            return unknown(call)

    def _of_writer(self, call: Call) -> Any:
        """Returns the labels that a layer writes when it reads no labels, such as the first one."""
        rule = rule_for(call.function)
        return rule(call) if rule in WRITERS else None

    def _set(self, tensor: Tensor, labels: Tensor, in_place: bool) -> None:
        before = self.label_of(tensor) if in_place else None
        if before is None or before is labels:
            self._known[tensor] = labels
        elif bool((core(before) == 0).any()):
            # Write into the labels themselves, so that a tensor of which this one is a view sees them.
            if core(before).shape == before.shape:
                before.copy_(labels.expand(before.shape).clone())
            else:
                self._known[tensor] = labels

    def _keeps_weight(self, call: Call, tensors: list[Tensor]) -> bool:
        weight = self.owners.weight_of(tensors[0]) if len(tensors) == 1 else None
        if weight is None or not isinstance(call.result, Tensor):
            return False
        if call.name == "aten::t":
            weight = Weight(weight.layers, not weight.transposed)
        elif call.name not in KEEPS_A_WEIGHT:
            return False
        self.owners.weights[call.result] = weight
        return True

    def _count_macs(self, call: Call) -> None:
        packet = call.function.overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*call.args, **call.kwargs, out_val=call.result)
            weight = next((w for t in call.tensors() if (w := self.owners.weight_of(t)) is not None), None)
            name = call.place if weight is None else self._layer_at_work(weight)
            self.macs[name] = self.macs.get(name, 0) + flops // 2

    def _count_inside(self, call: Call) -> None:
        """Counts what a module that cuts itself computes; its layers are its own business."""
        self._count_macs(call)
        if self._keeps_weight(call, call.tensors()):
            return
        owner = next((w for t in call.tensors() if (w := self.owners.weight_of(t)) is not None), None)
        if owner is not None and isinstance(call.result, Tensor):
            axis = 1 if isinstance(self.owners.modules[owner.layers[0]], (*Convolution, *Transposed)) else -1
            self.count(owner, call.result, call.result.numel() // call.result.shape[axis])

    def _layer_at_work(self, owner: Weight) -> str:
        """Returns which of the layers that share a weight is running."""
        module = self._stack[-1] if self._stack else ""
        return module if module in owner.layers else owner.layers[0]

    def _labels_at(self, places: tuple[Place, ...], size: int) -> Tensor:
        """Returns the labels of places that hold the same channels; new ones at the first call."""
        known = next((self.places[place] for place in places if place in self.places), None)
        bare = not any(side in ("in", "out") for _, side in places)
        fresh = self.labels.fresh_bare if bare else self.labels.fresh
        labels = fresh(size) if known is None else known
        for place in places:
            self.places.setdefault(place, labels)
        return labels

    def _enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._stack.append(name)
        if cuts_itself(module):
            if not self._inside_own and (labels := self.label_of(inputs[0])) is not None:
                self.bind(name, "in", along(labels, 1))
            self._inside_own += 1

    def _leave(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        self._stack.pop()
        if cuts_itself(module):
            self._inside_own -= 1
            if not self._inside_own:
                labels = self._labels_at(((name, "out"),), channels_of(module, "out"))
                self.writers.setdefault(name)
                shape = [1, -1, *[1] * (output.ndim - 2)]
                self._known[output] = labels.reshape(shape).expand(output.shape)
