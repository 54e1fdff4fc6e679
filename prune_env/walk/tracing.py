"""The first steps of tracing: check the network, copy it, protect the units that the user names."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prune_env.common.copying import copied
from prune_env.common.errors import ModelError, UserError, suggest
from prune_env.common.layers import channels_of, cuts_itself, is_standard
from prune_env.common.modes import unfused_attention
from prune_env.common.nested import tensors_of
from prune_env.walk.example import Example
from prune_env.walk.labels.follow import Follower
from prune_env.walk.unit import Unit

SHORT = (torch.float16, torch.bfloat16)
"""Number types that are too short to prove anything with."""


@dataclass
class Deadline:
    """A limit in seconds for one walk.

    Attributes:
        seconds: The limit.
        started: When the walk began.
    """

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def __call__(self, place: str) -> None:
        """Stops the walk if the time is over.

        Args:
            place: What the walk is doing, for the message.

        Raises:
            ModelError: If the time is over.
        """
        if time.monotonic() - self.started > self.seconds:
            raise ModelError(
                f"The walk of the network took longer than {self.seconds:g} s; it stopped at {place}. "
                "Allow more seconds (env.trace_seconds), give a smaller example, or trace a part of the network."
            )


def has_channels(module: nn.Module | None) -> bool:
    """Whether a module has channels of its own that a unit can run through."""
    return module is not None and (cuts_itself(module) or (is_standard(module) and channels_of(module, "out") > 0))


def refuse_unusable_weights(model: nn.Module) -> None:
    """Refuses weights that have no shape yet (lazy layers) or are not finite.

    NaN differs even from itself, so that the proof of every unit would fail.

    Raises:
        ModelError: If there is such a tensor; names the first one.
    """
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(values):
            raise ModelError(
                f"{name!r} has no shape yet (a lazy layer that has not seen an input). Run the network once on images, "
                "or give the layer its channels."
            )
        if values.is_meta:
            raise ModelError(f"{name!r} is on the meta device and has no values. Load the network's weights first.")
        # Other buffers may hold infinities, for example attention masks.
        learned = isinstance(values, nn.Parameter) or name.endswith(("running_mean", "running_var"))
        # A finite sum has finite terms and is faster to take.
        if learned and not (values.sum().isfinite() or torch.isfinite(values).all()):
            raise ModelError(
                f"{name!r} holds numbers that are not finite, so nothing can be measured with this network. "
                "Check the weights file, or the training that made it."
            )


def probe_of(model: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Returns a copy of the network in eval mode and the example, both in float32 where they were shorter.

    Raises:
        ModelError: If the example holds no tensor with values.
    """
    if any(tensor.is_meta for tensor in example.tensors):
        raise ModelError("The example is on the meta device and has no values. Give a tensor with values.")
    if any(tensor.layout != torch.strided or not tensor.numel() for tensor in example.tensors):
        raise ModelError("The example holds a sparse or an empty tensor. Give dense tensors with values.")
    if any(bool(tensor.isnan().any()) for tensor in example.tensors if tensor.is_floating_point()):
        raise ModelError("The example holds NaN, with which nothing can be compared. Give a tensor of numbers.")
    if not example.tensors:
        kinds = ", ".join(type(value).__name__ for value in (*example.args, *example.keywords.values()))
        raise ModelError(
            f"The example holds no tensor ({kinds or 'nothing'} given). Give what the network is called with: "
            "a tensor, a list, or a tuple of all arguments."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("A scripted or traced network has no code to follow. Give the network that it was made from.")
    probe = copied(model).eval().requires_grad_(False)
    if is_short(probe):
        probe = probe.float()
        example = example.floats(lambda tensor: tensor.float() if tensor.dtype in SHORT else tensor)
    return probe, example


def is_short(model: nn.Module) -> bool:
    """Whether a network holds numbers of 16 bits."""
    return any(tensor.dtype in SHORT for tensor in (*model.parameters(), *model.buffers()))


def followed(probe: nn.Module, example: Example, tick: Callable[[str], None], approximate: bool) -> Follower:
    """Runs the network once on the example and follows its channels by labels.

    Raises:
        ModelError: If the network does not run, or calls no convolution or linear layer.
    """
    follower = Follower(probe, tick, approximate)
    try:
        with follower.watching(), unfused_attention():
            output = example.run(probe)
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise example.does_not_run(error) from error
    if not follower.shapes:
        raise ModelError("The network calls no convolution or linear layer, so there is nothing to prune.")
    follower.outputs(output)
    return follower


@contextmanager
def training_code(probe: nn.Module) -> Iterator[None]:
    """Within the context, code that runs in training mode only does run, such as a second head.

    Modules that run torch's or torchvision's code stay in eval mode, so that nothing is drawn at random and no
    statistics change.
    """
    library = ("torch.", "torchvision.ops.")
    modules = [module for module in probe.modules() if not type(module).forward.__module__.startswith(library)]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False


def called_in_training(follower: Follower, probe: nn.Module, example: Example) -> tuple[str, ...]:
    """Follows the code that runs in training mode only; what such layers read is then cut with its units.

    Returns:
        The layers that only this code calls; none if the network does not run so, or draws random numbers.
    """
    called = set(follower.shapes)
    try:
        with training_code(probe):
            if is_deterministic(probe, example):
                with follower.without_costs() as shapes, follower.watching():
                    output = example.run(probe)
                follower.outputs(output)
                return tuple(name for name in shapes if name not in called)
    except Exception:  # the user's own code may raise anything, for example without targets
        return ()
    return ()


def is_deterministic(probe: nn.Module, example: Example) -> bool:
    """Whether two forward passes that draw other random numbers give the same outputs."""
    outputs = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            outputs.append(tensors_of(example.run(probe)))
    return len(outputs[0]) == len(outputs[1]) and all(map(_identical, *outputs))


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def protect_named(units: Iterable[Unit], reasons: Mapping[str, str], model: nn.Module) -> list[Unit]:
    """Protects the units that the user names, by the unit's name or by a module that the unit runs through."""
    units = list(units)
    modules = dict(model.named_modules())
    for key, reason in reasons.items():
        name, _, side = key.partition(":")
        touched = {
            unit.name
            for unit in units
            for member in unit.members
            if member.module == name and (member.side == side if side else member.side != "in")
        }
        touched |= {unit.name for unit in units if unit.name == key}
        if not touched and (side not in ("", "in") or not has_channels(modules.get(name))):
            known = [unit.name for unit in units]
            raise ModelError(f"protect: there is no module {name!r} with prunable channels: {suggest(name, known)}.")
        units = [replace(u, protected=u.protected or (reason if u.name in touched else None)) for u in units]
    return units
