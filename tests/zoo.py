"""Networks that the tests cut, and independent masks and comparisons that judge a cut."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from prune_env import LayerWalk, PruningPlan
from prune_env.models import build_model
from prune_env.walk.unit import Unit

TORCHVISION = {
    "resnet18": {},
    "resnet50": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "densenet121": {},
    "googlenet": {"aux_logits": False, "init_weights": False},
    "squeezenet1_1": {},
    "efficientnet_b0": {},
    "regnet_y_400mf": {},
    "convnext_tiny": {},
    "shufflenet_v2_x1_0": {},
    "resnext50_32x4d": {},
}
CIFAR = ("cifar_resnet20", "cifar_resnet56", "cifar_resnet110", "cifar_vgg16_bn")
LARGE = {
    "resnet50",
    "densenet121",
    "googlenet",
    "efficientnet_b0",
    "convnext_tiny",
    "resnext50_32x4d",
    "cifar_resnet110",
}
MODELS = tuple(
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else pytest.param(name)
    for name in (*TORCHVISION, *CIFAR)
)
"""Every network of the list, as the parameters of a test; tests of large networks are slow."""


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of the list in training mode, with batch norms that show every mistake."""
    torch.manual_seed(seed)
    if name in CIFAR:
        return randomise(build_model(name, 10))
    return randomise(torchvision.models.get_model(name, weights=None, **TORCHVISION[name]))


def example(name: str, batch: int = 1, seed: int = 0) -> Tensor:
    """Images [batch, 3, size, size] that the network accepts."""
    size = 32 if name in CIFAR else 64
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives batch norms scales, shifts and statistics that differ by channel, so that a leaking beta is seen.

    Layer scales (ConvNeXt starts them at 1e-6) become large enough for their branch to matter.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.affine:
                    uniform(module.weight, 0.5, 1.5)
                    uniform(module.bias, -0.5, 0.5)
                if module.track_running_stats:
                    uniform(module.running_mean, -0.3, 0.3)
                    uniform(module.running_var, 0.5, 1.5)
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                uniform(parameter, 0.5, 1.5)
    return model


@dataclass(frozen=True)
class Traced:
    """A traced network of the list, and its state before tracing."""

    model: nn.Module
    walk: LayerWalk
    before: "Imprint"


@dataclass(frozen=True)
class Imprint:
    """The parts of a user's network that must not change: every tensor, mode and requires_grad."""

    tensors: Mapping[str, int]
    training: Mapping[str, bool]
    requires_grad: Mapping[str, bool]


def imprint(model: nn.Module) -> Imprint:
    """The network's state, in a form that can be compared later."""
    return Imprint(
        {name: zlib.crc32(tensor.detach().numpy().tobytes()) for name, tensor in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
    )


@cache
def traced(name: str) -> Traced:
    """A network of the list, traced once in a session."""
    model = build(name)
    next(model.parameters()).requires_grad_(False)
    # One part is in eval mode, as where a user freezes a backbone's statistics.
    next(module for module in model.modules() if isinstance(module, nn.modules.Conv2d)).eval()
    before = imprint(model)
    return Traced(model, LayerWalk.trace(model, example(name)), before)


def random_widths(walk: LayerWalk, seed: int, least: float = 0.0) -> dict[str, int]:
    """A random width for every free unit, at least ``least`` of its channels and one."""
    generator = np.random.default_rng(seed)
    return {
        unit.name: int(generator.integers(max(1, round(least * unit.channels)), unit.channels + 1))
        for unit in walk.units
        if unit.protected is None
    }


@contextmanager
def channels_zeroed(model: nn.Module, units: Sequence[Unit], kept: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """The dense network with every cut channel multiplied by zero where a module reads it."""
    masks: dict[str, Tensor] = {}
    for unit in units:
        gone = sorted(set(range(unit.channels)) - set(kept[unit.name]))
        for member in unit.members:
            if member.side == "in" and gone:
                module = model.get_submodule(member.module)
                size = module.in_features if isinstance(module, nn.Linear) else module.in_channels
                mask = masks.setdefault(member.module, torch.ones(size))
                for channel in gone:
                    mask[member.index[channel].tolist()] = 0.0

    def reads(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            images = inputs[0]
            shape = (-1,) if isinstance(module, nn.Linear) else (-1, *[1] * (images.ndim - 2))
            return (images * mask.reshape(shape), *inputs[1:])

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(reads(mask)) for name, mask in masks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Every tensor that the network returns in eval mode; its own modes stay as they are."""
    was = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        result = model(images)
    for module, training in was.items():
        module.training = training
    return list(_tensors(result))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def relative_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of any two outputs, relative to the largest value expected in that output."""
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    assert all(tensor.isfinite().all() for tensor in (*found, *expected))
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(found, expected, strict=True)
    )


def mask_difference(walk: LayerWalk, plan: PruningPlan, images: Tensor) -> float:
    """The relative difference between the plan's network and the dense network with the cut channels zeroed."""
    small = plan.apply(walk.model)
    with channels_zeroed(walk.model, walk.units, plan.kept):
        expected = outputs(walk.model, images)
    return relative_difference(outputs(small, images), expected)


class Net(nn.Module):
    """A network made of named modules and a forward function."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, images: Tensor) -> Any:
        return self.run(self, images)


def conv(inputs: int, outputs: int, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **settings)


def body(
    middle: Callable[[Net, Tensor], Tensor], channels: int = 8, first: int = 8, **parts: nn.Module | nn.Parameter
) -> Net:
    """Conv ``a`` of ``first`` channels, batch norm, ReLU, the middle under test, conv ``z``, linear ``fc``.

    The middle maps images [N, first, 8, 8] to [N, channels, any, any].
    """
    torch.manual_seed(0)
    own = {"a": conv(3, first, bias=False), "bn": nn.BatchNorm2d(first), "z": conv(channels, 6)}

    def forward(net: Net, images: Tensor) -> Tensor:
        inner = middle(net, torch.relu(net.bn(net.a(images))))
        return net.fc(torch.relu(net.z(inner)).mean((2, 3)))

    return randomise(Net(forward, **own, **parts, fc=nn.Linear(6, 4)))


def small_images(batch: int = 1, seed: int = 0) -> Tensor:
    """Images [batch, 3, 8, 8] for the small networks."""
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def random_plan(walk: LayerWalk, seed: int, least: float = 0.0) -> PruningPlan:
    """A plan of random widths that keeps random channels."""
    generator = np.random.default_rng(seed)
    scores = {unit.name: generator.random(unit.channels) for unit in walk.units}
    return walk.plan(random_widths(walk, seed, least), scores)


def unit_of(walk: LayerWalk, name: str) -> Unit:
    return next(unit for unit in walk.units if unit.name == name)


def chain(seed: int = 0) -> nn.Sequential:
    """Two free units of 8 and 6 channels, a flatten with 16 pixels, and a classifier."""
    torch.manual_seed(seed)
    return randomise(
        nn.Sequential(
            conv(3, 8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            conv(8, 6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(6 * 16, 5),
        )
    )
