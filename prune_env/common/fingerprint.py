"""The fingerprint: module types and shapes that identify a network, whatever its weights."""

import hashlib
from collections.abc import Mapping
from itertools import chain, zip_longest

import torch
from torch import nn

from prune_env.common.layers import cuts_itself
from prune_env.common.text import shorten


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Returns each module's type and the shapes of its own tensors, by dotted name, in the network's order.

    The channels describe convolutions and linear layers, for example ``Conv2d 16->32 3x3 groups=1``.
    """
    return {name: _describe(module) for name, module in model.named_modules() if name}


def first_difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Describes the first module that is missing, new or of another type or shape; None if all modules are equal."""
    for name in chain.from_iterable(zip_longest(expected, found)):
        if name is None:
            continue
        place = shorten(repr(name))
        if name not in found:
            return f"{place} is {shorten(expected[name])} in the plan and missing in the network"
        if name not in expected:
            return f"{place} is {shorten(found[name])} in the network and unknown to the plan"
        if found[name] != expected[name]:
            return f"{place} is {shorten(expected[name])} in the plan and {shorten(found[name])} in the network"
    return None


def weights_digest(model: nn.Module) -> str:
    """Returns a hash of the network's weights and buffers: the first 32 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _describe(module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{kind} {module.in_features}->{module.out_features}" + (" bias" if module.bias is not None else "")
    if isinstance(module, nn.modules.conv._ConvNd):
        kernel = "x".join(map(str, module.kernel_size))
        text = f"{kind} {module.in_channels}->{module.out_channels} {kernel} groups={module.groups}"
        return text + (" bias" if module.bias is not None else "")
    if cuts_itself(module):
        return f"{kind} {module.in_channels}->{module.out_channels}"
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return " ".join([kind, *(f"{name}{list(tensor.shape)}" for name, tensor in tensors)]).replace(", ", ",")
