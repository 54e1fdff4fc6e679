"""The im2col patches of a layer's input, and their second moments."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.common.errors import EvaluationError
from prune_env.common.hooks import watching
from prune_env.data import Batch

LARGEST = 8192
"""Largest number of weights d per output channel for d x d second moments in float64: 0.5 GB a layer [our choice]."""

AT_ONCE = 1 << 24
"""Patch values in memory at a time, a few times 64 MB: patches need k x k times the memory of the inputs."""

SeeCall = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Called with a module's name, the module, its input and its output."""


def patches(module: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the input values that a layer multiplies with its weights, for each output position.

    Args:
        module: A convolution of any dimension, grouping and padding, or a linear layer.
        inputs: The module's input, [N, C, *space] or [N, *any, C].

    Returns:
        [N, groups, d, positions], with d weights per output channel in the order of ``module.weight.flatten(1)``;
        without the bias' constant input.
    """
    if isinstance(module, nn.Linear):
        return inputs.reshape(len(inputs), -1, module.in_features).transpose(1, 2).unsqueeze(1)
    assert isinstance(module, nn.modules.conv._ConvNd)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    steps = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for axis, (kernel, stride, dilation) in enumerate(steps, start=2):
        windows = windows.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    space = len(module.kernel_size)
    kernel_first = windows.movedim(tuple(range(-space, 0)), tuple(range(2, 2 + space)))
    positions = windows.shape[2 : 2 + space].numel()
    return kernel_first.reshape(len(inputs), module.groups, -1, positions)


def watch(model: nn.Module, names: Iterable[str], batches: Iterable[Batch], see: SeeCall) -> None:
    """Runs a network without gradients and calls ``see`` at every call of the named modules.

    Args:
        model: The network, in the mode to run in.
        names: Modules with one input.
        batches: Images [N, C, H, W] and targets, which are not read.
        see: Called during each module call, so that no input or output is kept in memory.
    """

    def show(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(name, module, inputs[0], output)

    with watching(model, names, after=show), torch.no_grad():
        for images, _ in batches:
            # In bfloat16 a covariance of near-identical inputs may be indefinite, so use float32.
            with torch.autocast(images.device.type, enabled=False):
                model(images)


@dataclass
class PatchMoments:
    """First and second moments of one layer's patches over all images and output positions.

    A shift near the mean is subtracted from all patches, because differences of large sums would lose all precision.

    Attributes:
        shift: float64 [groups, d].
        count: Patches seen.
        total: float64 [groups, d], the sum of the shifted patches.
        products: float64 [groups, d, d], the sum of their outer products.
    """

    shift: Tensor
    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, patch: Tensor, shift: Tensor | None = None) -> Self:
        """Returns the moments of patches [N, groups, d, positions]; the default shift is the patches' own mean."""
        rows = patch.permute(1, 2, 0, 3).flatten(2)
        shift = rows.mean(2, dtype=torch.float64) if shift is None else shift
        rows = rows - shift.to(rows.dtype).unsqueeze(2)
        return cls(
            shift.to(rows.dtype).double(),
            rows.shape[2],
            rows.sum(2, dtype=torch.float64),
            (rows @ rows.transpose(1, 2)).double(),
        )

    def add(self, patch: Tensor) -> None:
        """Adds more patches [N, groups, d, positions], in place."""
        more = self.of(patch, self.shift)
        self.count += more.count
        self.total += more.total
        self.products += more.products

    @property
    def mean(self) -> Tensor:
        """The mean patch, float64 [groups, d]."""
        return self.shift + self.total / self.count

    def curvature(self, centred: bool) -> Tensor:
        """Returns H of the layer's squared error, E = mean_j |w x_j|^2 / 2 for each output channel (L-OBS).

        Args:
            centred: Whether the layer has a bias, with a constant input 1. If true, returns H's Schur complement: the
                covariance, whose inverse is the weights' block of H^-1.

        Returns:
            float64 [groups, d, d].
        """
        offset = self.total / self.count
        covariance = self.products / self.count - offset.unsqueeze(2) * offset.unsqueeze(1)
        if centred:
            return covariance
        return covariance + self.mean.unsqueeze(2) * self.mean.unsqueeze(1)


def patch_moments(model: nn.Module, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, PatchMoments]:
    """Computes the moments of the named layers' input patches in one pass over the images.

    Products are computed in float32 and added up in float64: 1 GB for torchvision's resnet50.

    Args:
        model: The network in eval mode.
        names: Convolutions and linear layers, each of at most `LARGEST` weights per output channel.
        batches: Images [N, C, H, W] and targets, which are not read.

    Raises:
        EvaluationError: If a layer's input is not finite; names the layer.
    """
    moments: dict[str, PatchMoments] = {}

    def see(name: str, module: nn.Module, inputs: Tensor, _output: Tensor) -> None:
        _check_finite(name, inputs)
        each = patches(module, inputs[:1]).numel()
        for some in inputs.split(max(1, AT_ONCE // each)):
            laid_out = patches(module, some)
            if name in moments:
                moments[name].add(laid_out)
            else:
                moments[name] = PatchMoments.of(laid_out)

    watch(model, names, batches, see)
    return moments


def patch_spreads(model: nn.Module, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns mean and variance of the named layers' input patches, float64 [groups, d] each, for any layer size.

    Args:
        model: The network in eval mode.
        names: Convolutions and linear layers.
        batches: Images [N, C, H, W] and targets, which are not read.

    Raises:
        EvaluationError: If a layer's input is not finite; names the layer.
    """
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def see(name: str, module: nn.Module, inputs: Tensor, _output: Tensor) -> None:
        _check_finite(name, inputs)
        for image in inputs.split(1):
            laid_out = patches(module, image).double()
            count, total, squares = sums.get(name, (0, torch.zeros(()), torch.zeros(())))
            sums[name] = (
                count + laid_out.shape[3],
                total + laid_out.sum((0, 3)),
                squares + laid_out.square().sum((0, 3)),
            )

    watch(model, names, batches, see)
    spreads = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        spreads[name] = mean, (squares / count - mean.square()).clamp_min(0.0)
    return spreads


def _check_finite(name: str, inputs: Tensor) -> None:
    if not inputs.isfinite().all():
        raise EvaluationError(
            f"The input of layer {name!r} is not finite. Check the network's weights and the data's scaling."
        )


def too_large(weight: Tensor) -> bool:
    """Whether a layer has more than `LARGEST` weights per output channel."""
    return weight[0].numel() > LARGEST


def shrunk_inverse_diagonal(curvature: Tensor, shrinkage: float) -> Tensor:
    """Returns the diagonal of the inverse of (1 - a) H + a (trace(H) / d) I.

    This relative damping keeps the trace. It does not change H of whitened inputs, and scales with the inputs.

    Args:
        curvature: Positive semidefinite H, float64 [groups, d, d].
        shrinkage: a, in (0, 1].

    Returns:
        float64 [groups, d]; where H is 0, so large that a division by it gives 0.

    Raises:
        EvaluationError: If H is not finite, or not positive semidefinite.
    """
    scale = curvature.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-100)
    damped = (1.0 - shrinkage) * curvature
    damped.diagonal(dim1=1, dim2=2).add_(shrinkage * scale.unsqueeze(1))
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed.any():
        raise EvaluationError("The second moments of the input cannot be inverted: the input's squares are too large.")
    return torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
