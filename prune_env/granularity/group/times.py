"""What each convolution takes on this machine in how many groups: a grouped one may be slower than a whole one."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.hooks import watching
from prune_env.common.latency import measure_latency
from prune_env.common.modes import in_eval_mode
from prune_env.granularity.group.gathered import GatheredConv2d, possible_groups
from prune_env.granularity.group.grouping import Grouping

FASTER = 0.95
"""A group count counts as faster if it takes at most this share of the time of the whole convolution [our choice]."""

Times = Mapping[str, Mapping[int, float]]
"""Seconds by convolution and group count."""


def time_groups(grouping: Grouping, images: Tensor) -> dict[str, dict[int, float]]:
    """Times every convolution that may fall into groups, as wide as it is, in each number of groups that it may have.

    Each group reads as many inputs as make up its share, from all over the inputs, so that they have to be gathered.
    Of convolutions that are alike one is timed.

    Args:
        grouping: The convolutions.
        images: A batch [N, C, H, W] on the device and in the layout to be timed.

    Returns:
        Median seconds of a forward pass by name and group count; 1 is the convolution as it is.
    """
    network = grouping.walk.model
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    read = _inputs(network, [found.name for found in grouping.convolutions], images)
    times: dict[str, dict[int, float]] = {}
    known: dict[Hashable, dict[int, float]] = {}
    for found in grouping.convolutions:
        convolution = network.get_submodule(found.name)
        assert isinstance(convolution, nn.Conv2d)
        alike = (str(convolution), read[found.name].shape, found.counts)
        if alike in known:
            times[found.name] = known[alike]
            continue
        counts = [
            count
            for count in possible_groups(convolution.in_channels, convolution.out_channels)
            if count in found.counts
        ]
        models = {str(count): _in_groups(convolution, count) for count in counts}
        for model in models.values():
            model.to(images.device).to(memory_format=layout)
        measured = measure_latency(models, read[found.name])
        times[found.name] = known[alike] = {count: measured[str(count)].median for count in counts}
    return times


def faster_counts(times: Times) -> dict[str, list[int]]:
    """The group counts with which each convolution is faster than whole, and 1."""
    return {
        name: [count for count, seconds in by_count.items() if count == 1 or seconds <= FASTER * by_count[1]]
        for name, by_count in times.items()
    }


def _in_groups(convolution: nn.Conv2d, count: int) -> nn.Module:
    if count == 1:
        # A module of its own, for it goes to another device and layout.
        return GatheredConv2d.from_convolution(convolution, [np.arange(convolution.in_channels)]).simplest()
    chosen = [np.arange(number, convolution.in_channels, count) for number in range(count)]
    return GatheredConv2d.from_convolution(convolution, chosen)


def _inputs(network: nn.Module, names: list[str], images: Tensor) -> dict[str, Tensor]:
    """What each convolution reads of a batch."""
    found: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = inputs[0]

    with in_eval_mode(network), watching(network, names, before=keep), torch.inference_mode():
        network(images.to(next(network.parameters()).device))
    return {name: tensor.to(images.device) for name, tensor in found.items()}
