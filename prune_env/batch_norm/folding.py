"""Folds batch norms into the convolutions before them: the same function with fewer passes over memory."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights

from prune_env.batch_norm.fast_norm import PLAIN, BatchNorm
from prune_env.common.copying import copied
from prune_env.common.decisions import Decisions, Recording, Repeating
from prune_env.common.hooks import watching
from prune_env.common.layers import Convolution
from prune_env.common.nested import tensors_of

TOLERANCE = 1e-3
"""Largest difference allowed between the dense network and its folded form, relative to the largest output."""


@dataclass(frozen=True)
class FoldPair:
    """A convolution and the batch norm that is the only reader of the convolution's output."""

    conv: str
    norm: str


def find_fold_pairs(model: nn.Module, example_input: Tensor) -> tuple[FoldPair, ...]:
    """Finds the convolutions whose output one batch norm reads and nothing else reads.

    To prove the pairs, all of them are folded in a copy and the outputs compared. If the outputs differ, no pair is
    returned. What a detector selects by its scores may differ by rounding alone, so the copy takes the network's
    decisions.

    Args:
        model: The network in eval mode; untouched.
        example_input: A batch of inputs.

    Returns:
        The pairs, in forward order.
    """
    probe = copied(model).eval().float()
    pairs = _candidates(probe, example_input)
    _shift_statistics(probe)
    decisions = Decisions()
    with torch.no_grad():
        with Recording(decisions):
            expected = tensors_of(probe(example_input))
        fold(probe, pairs)
        with Repeating(decisions, _close):
            folded = tensors_of(probe(example_input))
    return pairs if all(map(_close, expected, folded)) else ()


def _close(expected: Tensor, folded: Tensor) -> bool:
    if expected.shape != folded.shape:
        return False
    if not expected.numel() or not expected.is_floating_point():
        return torch.equal(expected, folded)
    return bool((expected - folded).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1e-12))


def _shift_statistics(model: nn.Module) -> None:
    """Gives every batch norm statistics that change its input: an identity would let any pair pass the proof."""
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
        alive.append(output)  # Python may reuse the id of a freed tensor

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
    """Folds each pair's batch norm (in eval mode) into its convolution, in place; an identity replaces the norm."""
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
    weight, bias = conv._parameters["weight"], conv._parameters["bias"]
    assert weight is not None
    # fuse_conv_bn_weights keeps the bias' dtype; a new bias gets the weight's dtype.
    conv._parameters["weight"], conv._parameters["bias"] = fuse_conv_bn_weights(
        weight.detach(),
        None if bias is None else bias.detach(),
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight.detach(),
        norm.bias.detach(),
    )
