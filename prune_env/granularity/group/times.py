"""Time of each convolution by group count on this machine: a grouped convolution may be slower than a whole one."""

from collections.abc import Hashable, Mapping
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prune_env.common.hooks import watching
from prune_env.common.latency import measure_latency
from prune_env.common.modes import in_eval_mode
from prune_env.common.ranges import Count, Latency
from prune_env.common.timing import is_faster
from prune_env.granularity.base import GranularityMeasurements
from prune_env.granularity.group.gathered import GatheredConv2d, possible_groups
from prune_env.granularity.group.grouping import Grouping

Times = Mapping[str, Mapping[int, float]]
"""Seconds by convolution and group count."""


class GroupMeasurements(GranularityMeasurements):
    """The file ``groups.json`` of a run.

    Attributes:
        times: Seconds of each convolution's forward pass on the timed batch, by group count; 1 is the whole
            convolution. Empty if nothing was timed.
        allowed: The allowed group counts of each convolution that may be grouped.
        whole: Why other layers stay whole.
    """

    file = "groups.json"

    times: dict[str, dict[Count, Latency]]
    allowed: dict[str, list[Count]] = Field(default_factory=dict)
    whole: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole_ones_are_timed(self) -> Self:
        for name, times in self.times.items():
            if 1 not in times:
                raise ValueError(f"the times of layer {name!r} lack that of 1 group, with which others are compared")
        return self


def time_groups(grouping: Grouping, images: Tensor) -> dict[str, dict[int, float]]:
    """Times every convolution that may be grouped, at its dense width, with each possible group count.

    Each group reads its share of the inputs, spread over all inputs so that the gather is needed. Only one of several
    identical convolutions with the same input shape is timed.

    Args:
        grouping: The convolutions that may be grouped.
        images: A batch [N, C, H, W] on the device and in the layout of the timing.

    Returns:
        Median seconds of a forward pass by name and group count; 1 is the whole convolution.
    """
    network = grouping.walk.model
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    inputs = _inputs(network, [groupable.name for groupable in grouping.convolutions], images)
    times: dict[str, dict[int, float]] = {}
    known: dict[Hashable, dict[int, float]] = {}
    for groupable in grouping.convolutions:
        name, convolution = groupable.name, network.get_submodule(groupable.name)
        assert isinstance(convolution, nn.Conv2d)
        kind = (str(convolution), inputs[name].shape, groupable.counts)
        if kind in known:
            times[name] = known[kind]
            continue
        counts = [
            count
            for count in possible_groups(convolution.in_channels, convolution.out_channels)
            if count in groupable.counts
        ]
        models = {str(count): _in_groups(convolution, count) for count in counts}
        for model in models.values():
            model.to(images.device).to(memory_format=layout)
        measured = measure_latency(models, inputs[name])
        times[name] = known[kind] = {count: measured[str(count)].median for count in counts}
    return times


def faster_counts(times: Times) -> dict[str, list[int]]:
    """For each convolution the group counts that are faster than the whole convolution, and 1."""
    return {
        name: [count for count, seconds in by_count.items() if count == 1 or is_faster(seconds, by_count[1])]
        for name, by_count in times.items()
    }


def _in_groups(convolution: nn.Conv2d, count: int) -> nn.Module:
    if count == 1:
        # Copy, because the caller moves the module to another device and layout.
        return GatheredConv2d.from_convolution(convolution, [np.arange(convolution.in_channels)]).simplest()
    chosen = [np.arange(number, convolution.in_channels, count) for number in range(count)]
    return GatheredConv2d.from_convolution(convolution, chosen)


def _inputs(network: nn.Module, names: list[str], images: Tensor) -> dict[str, Tensor]:
    """The input of each convolution for a batch of images."""
    inputs_by_name: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs_by_name[name] = inputs[0]

    with in_eval_mode(network), watching(network, names, before=keep), torch.inference_mode():
        network(images.to(next(network.parameters()).device))
    return {name: tensor.to(images.device) for name, tensor in inputs_by_name.items()}
