"""Inputs of the checks: two small networks, images of noise, and a problem made of them."""

import torch
from torch import Tensor, nn

from prune_env.budget import Budget
from prune_env.config.granularity import GranularitySettings
from prune_env.criteria import ScoringContext, score_channels
from prune_env.data import ImageSet
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.granularity import GranularityContext, make_granularity
from prune_env.rewards import make_reward
from prune_env.walk import LayerWalk

COLOURS = 2
CLASSES = 3
SIDE = 8
KEEP = 0.5
MIN_KEEP = 0.1
PROBE_KEEP = 0.25


def small_networks() -> dict[str, nn.Module]:
    """A chain, and a network with a shortcut and a depthwise convolution, in eval mode; the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = {"a chain of convolutions": _chain(), "a residual network": SmallResidual()}
        for model in networks.values():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    _unlike(module)
    return {name: model.eval() for name, model in networks.items()}


def small_images(count: int, seed: int = 0) -> ImageSet:
    """Images of noise [count, 2, 8, 8] with classes from 0 to 2 drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, COLOURS, SIDE, SIDE, generator=generator)
    return ImageSet(images, torch.randint(CLASSES, (count,), generator=generator))


def small_walk(model: nn.Module) -> LayerWalk:
    """The walk of one of the small networks."""
    return LayerWalk.trace(model, small_images(1).images)


def small_problem(granularity: GranularitySettings | None = None) -> PruningProblem:
    """A fresh problem: the residual network at half its MACs, with probes, rewarded for its quality."""
    walk = small_walk(small_networks()["a residual network"])
    calibration = small_images(16, seed=2)
    context = ScoringContext(walk, calibration)
    scores = score_channels("l1", context)
    about = GranularityContext(context, scores, MIN_KEEP, lambda: calibration.images, timed=False)
    return PruningProblem(
        walk,
        Budget(walk, "macs", KEEP, MIN_KEEP),
        Evaluator(walk, small_images(24, seed=1), calibration, ExecutionSettings(batch=24)),
        scores,
        make_reward("error"),
        None,
        input_size=(SIDE, SIDE),
        context=context,
        granularity=make_granularity(granularity or GranularitySettings()).prepare(about),
        probe_keep=PROBE_KEEP,
    )


class SmallResidual(nn.Module):
    """A stem, a block with a shortcut, a depthwise and a pointwise convolution, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(COLOURS, 6, 3)
        self.inner = _conv(6, 8, 3)
        self.outer = _conv(8, 6, 3)
        self.depthwise = _conv(6, 6, 3, groups=6)
        self.pointwise = _conv(6, 7, 1)
        self.fc = nn.Linear(7, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """The scores of images [N, 2, H, W], [N, 3]."""
        stream = torch.relu(self.stem(images))
        stream = torch.relu(stream + self.outer(torch.relu(self.inner(stream))))
        stream = torch.relu(self.pointwise(torch.relu(self.depthwise(stream))))
        scores: Tensor = self.fc(stream.mean((2, 3)))
        return scores


def _chain() -> nn.Sequential:
    body = (_conv(COLOURS, 6, 3), nn.ReLU(), _conv(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(8, CLASSES))


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def _unlike(norm: nn.BatchNorm2d) -> None:
    """Gives a batch norm channels that differ, as those of a trained network do."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0.0, 0.1)
        norm.running_mean.normal_(0.0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
