"""Shared by the tests of second-order criteria: Hessians from torch's own functional API, and small networks."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from toy import image_set

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext
from prune_env.data import Batch, ImageSet


class Quadratic(nn.Module):
    """A "network" whose output is the loss 1/2 w^T A w of its one weight [channels, weights], for any input."""

    def __init__(self, matrix: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.matrix = matrix
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=matrix.dtype))

    def forward(self, _images: Tensor) -> Tensor:
        flat = self.weight.flatten()
        return 0.5 * flat @ self.matrix @ flat


def output_of(model: nn.Module) -> Callable[[Batch], Tensor]:
    """A loss that is the network's output, whatever the targets."""
    return lambda batch: model(batch.images)


def full_hessian(context: ScoringContext, name: str) -> Tensor:
    """The Hessian of the mean cross-entropy by one layer's weights, [n, n], as torch.autograd.functional has it."""
    assert context.data is not None
    data, model = context.data, context.folded
    weight = context.weights[name]

    def loss(flat: Tensor) -> Tensor:
        return F.cross_entropy(
            functional_call(model, {f"{name}.weight": flat.view_as(weight)}, (data.images,)), data.targets
        )

    return torch.autograd.functional.hessian(loss, weight.detach().flatten())


def smooth_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a classifier with a smooth activation, whose curvature is nowhere zero; 156 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 16, 2)
    )


def smooth_subject(count: int = 12, seed: int = 0, batch_size: int = 64) -> ScoringContext:
    model = smooth_net()
    data = image_set(count, seed=3, side=6, classes=2)
    return ScoringContext(LayerWalk.trace(model, data.images[:1]), data, seed, batch_size)


def one_layer(layer: nn.Module, images: Tensor, tail: nn.Module) -> ScoringContext:
    """A network with one layer under test, named "0", that reads the images."""
    model = nn.Sequential(layer, nn.ReLU(), tail)
    return ScoringContext(
        LayerWalk.trace(model, images[:1]), ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def batches_of(data: ImageSet, size: int) -> Iterable[Batch]:
    return list(data.batches(size))
