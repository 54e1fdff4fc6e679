"""Batch norms folded into the convolutions before them: the same function with fewer passes over memory."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import PLAIN, BatchNorm
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution

TOLERANCE = 1e-3
"""Largest difference allowed between the dense network and its folded form, relative to the largest output."""


@dataclass(frozen=True)
class FoldPair:
    """A convolution and the batch norm that alone reads its output."""

    conv: str
    norm: str


def find_fold_pairs(model: nn.Module, example_input: Tensor) -> tuple[FoldPair, ...]:
    """The convolutions whose output goes into one batch norm and nowhere else.

    What is found is proved by folding all pairs of a copy and comparing; if that differs, nothing is folded.

    Args:
        model: The network in eval mode; untouched.
        example_input: A batch of inputs.

    Returns:
        The pairs, in forward order.
    """
    probe = copy.deepcopy(model).eval().float()
    pairs = _candidates(probe, example_input)
    _shift_statistics(probe)
    with torch.no_grad():
        expected = probe(example_input)
        fold(probe, pairs)
        found = probe(example_input)
    scale = expected.abs().max().clamp_min(1e-12)
    return pairs if bool((expected - found).abs().max() <= TOLERANCE * scale) else ()


def _shift_statistics(model: nn.Module) -> None:
    """Statistics that make every batch norm change its input: fresh ones are the identity, and would prove anything."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None and module.running_var is not None:
            spread = module.running_var.sqrt()
            module.running_mean += spread * (0.5 + torch.rand(spread.shape, generator=generator))
            module.running_var *= 0.5 + torch.rand(spread.shape, generator=generator)


def _candidates(model: nn.Module, example_input: Tensor) -> tuple[FoldPair, ...]:
    modules = dict(model.named_modules())
    producers: dict[int, str] = {}
    alive: list[Tensor] = []
    calls: dict[str, int] = {}
    pairs: list[FoldPair] = []

    def produced(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        producers[id(output)] = name
        alive.append(output)  # an identity is only unique while its tensor lives

    def read(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        conv = producers.get(id(inputs[0]))
        if conv is not None and type(module) in PLAIN and module.affine and module.track_running_stats:
            pairs.append(FoldPair(conv, name))

    convolutions = [name for name, module in modules.items() if isinstance(module, Convolution)]
    norms = [name for name, module in modules.items() if type(module) in PLAIN]
    with watching(model, convolutions, after=produced), watching(model, norms, before=read), torch.no_grad():
        model(example_input)
    return tuple(pair for pair in pairs if calls[pair.conv] == calls[pair.norm] == 1)


def fold(model: nn.Module, pairs: tuple[FoldPair, ...]) -> None:
    """Folds each pair's batch norm, in eval mode, into its convolution, in place; the norm becomes an identity."""
    for pair in pairs:
        parent, _, leaf = pair.norm.rpartition(".")
        holder = model.get_submodule(parent)
        fold_into(model.get_submodule(pair.conv), holder._modules[leaf])
        holder._modules[leaf] = nn.Identity()


def fold_into(conv: nn.Module, norm: nn.Module | None) -> None:
    """Multiplies a batch norm's scale and shift into a convolution's weight and bias, in place."""
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight: Tensor = conv._parameters["weight"]  # type: ignore[assignment]
    bias = conv._parameters["bias"]
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if bias is not None:
        shift = shift + bias.float() * scale
    shaped = scale.view(-1, *([1] * (weight.ndim - 1)))
    folded = (weight.detach().float() * shaped).to(weight.dtype)
    conv._parameters["weight"] = nn.Parameter(folded, requires_grad=False)
    conv._parameters["bias"] = nn.Parameter(shift.detach().to(weight.dtype), requires_grad=False)
