"""Times convolutions that lost stripes beside the dense ones and channel cuts of equal MACs; one thread, float32.

Run `python -m benchmarks.stripes [ROUNDS]`; it prints a Markdown table of medians.
"""

import sys
from math import sqrt

import numpy as np
import torch
from rich.console import Console
from torch import nn

from prune_env.common.latency import measure_latency
from prune_env.granularity.stripe import StripedConv2d

BATCH = 64
SHAPES = (
    (16, 16, 32, 1), (32, 32, 16, 1), (64, 64, 8, 1), (16, 32, 32, 2),
    (256, 256, 8, 1), (512, 512, 4, 1), (512, 512, 2, 1),
)  # fmt: skip
"""Input channels, output channels, image side and stride of layers of ResNet-56 and VGG-16 on CIFAR-10."""
KEEPS = (0.5, 0.3)
KINDS = ("random", "clustered")


def positions(filters: int, keep: float, kind: str, generator: np.random.Generator) -> list[list[int]]:
    """The stripes that stay, out of 3 x 3: at random, or by DTC's rule for filters of uneven strength."""
    strengths = generator.random((filters, 9))
    if kind == "clustered":
        skeleton = np.exp(0.3 * generator.standard_normal((filters, 9)) + 0.4 * generator.standard_normal(9))
        skeleton *= np.exp(0.8 * generator.standard_normal((filters, 1)))
        # A stripe stays where |FS| > c * mean strength / strength of its filter.
        strengths = skeleton * skeleton.sum(1, keepdims=True)
    least = np.sort(strengths, axis=None)[-round(keep * strengths.size)]
    return [np.flatnonzero(row >= least).tolist() for row in strengths]


def main(rounds: int) -> None:
    """Prints the table: the dense convolution in ms, and the times of the others over the dense one's."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    show = Console(width=200, highlight=False, markup=False).print
    show("| layer | kept | dense, ms | channels / dense | random stripes / dense | clustered stripes / dense |")
    show("|---|---|---|---|---|---|")
    for inputs, outputs, side, stride in SHAPES:
        images = torch.randn(BATCH, inputs, side, side)
        layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        for keep in KEEPS:
            models: dict[str, nn.Module] = {"dense": layer}
            for kind in KINDS:
                models[kind] = StripedConv2d.from_convolution(layer, positions(outputs, keep, kind, generator))
            few = [round(sqrt(keep) * channels) for channels in (inputs, outputs)]
            cut = nn.Conv2d(few[0], few[1], 3, stride, padding=1, bias=False)
            models["channels"] = nn.Sequential(FirstChannels(few[0]), cut)
            taken = measure_latency(models, images, rounds)
            dense = taken["dense"].median
            ratios = [f"{taken[name].median / dense:.2f}" for name in ("channels", *KINDS)]
            place = f"{inputs} -> {outputs}, {side} x {side}, stride {stride}"
            show(f"| {place} | {keep:.0%} | {1e3 * dense:.1f} | {' | '.join(ratios)} |")


class FirstChannels(nn.Module):
    """Hands on a contiguous image with the first channels alone, made once, so that only the convolution is timed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels
        self._images: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, channels, H, W]."""
        if self._images is None:
            self._images = images[:, : self._channels].contiguous()
        return self._images


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
