"""Times of convolutions in groups: the timed counts, the timed networks, and the faster counts."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_resnet, toy_walk
from zoo import conv, imprint, small_images

from prune_env import LayerWalk
from prune_env.common.latency import Latency, measure_latency
from prune_env.granularity.group import times as group_times
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.times import faster_counts, time_groups


class Watch:
    """Stands in for the clock, and notes what is to be timed."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, nn.Module], Tensor]] = []

    def __call__(self, models: Mapping[str, nn.Module], images: Tensor) -> dict[str, Latency]:
        self.calls.append((dict(models), images))
        return {name: Latency(float(len(self.calls)), 0.0, 0.0) for name in models}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found = Watch()
    monkeypatch.setattr(group_times, "measure_latency", found)
    return found


def row() -> nn.Sequential:
    """Three convolutions of 8 to 8 channels, of which the last has a stride; the first and the last one stay whole."""
    torch.manual_seed(0)
    return nn.Sequential(
        conv(3, 8),
        nn.ReLU(),
        conv(8, 8),
        nn.ReLU(),
        conv(8, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        conv(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    ).eval()


def test_every_convolution_is_timed_in_the_counts_that_divide_and_are_allowed() -> None:
    # down 8 to 12 channels, up 12 to 16, project 8 to 16, mid 16 to 24, out 24 to 16.
    grouping = Grouping(toy_walk(), 6, counts={"mid": [2, 3, 8], "up": [1]})
    times = time_groups(grouping, image_set(2).images)
    assert {name: list(found) for name, found in times.items()} == {
        "down": [1, 2, 4],
        "up": [1],
        "project": [1, 2, 4],
        "mid": [1, 2, 8],
        "out": [1, 2, 4],
    }
    assert all(0.0 < seconds < 1.0 for found in times.values() for seconds in found.values())


def test_what_is_timed_is_the_convolution_on_what_it_reads(watch: Watch) -> None:
    model = toy_resnet()
    images = image_set(2).images
    time_groups(Grouping(toy_walk(model), 8), images)
    names = ["down", "up", "project", "mid", "out"]
    with torch.no_grad():
        stem = torch.relu(model.stem_bn(model.stem(images)))
    torch.testing.assert_close(watch.calls[0][1], stem)
    for name, (models, read) in zip(names, watch.calls, strict=True):
        dense = model.get_submodule(name)
        assert type(models["1"]) is nn.Conv2d
        with torch.inference_mode():
            torch.testing.assert_close(models["1"](read), dense(read))
            assert {made(read).shape for made in models.values()} == {dense(read).shape}
        for count, made in models.items():
            if count != "1":
                assert isinstance(made, GatheredConv2d)
                assert made.convolution.groups == int(count)
                # Each group reads its share of the inputs, spread over all inputs.
                assert sorted(made.index.tolist()) == list(range(dense.in_channels))
                if int(count) < dense.in_channels:
                    assert made.index.tolist() != list(range(dense.in_channels))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_timed_in_the_layout_of_the_images(watch: Watch, layout: torch.memory_format) -> None:
    time_groups(Grouping(toy_walk(), 2), image_set(2).images.contiguous(memory_format=layout))
    for models, read in watch.calls:
        assert read.is_contiguous(memory_format=layout)
        for made in models.values():
            weight = next(made.parameters())
            assert weight.is_contiguous(memory_format=layout)


def test_only_one_of_several_equal_convolutions_is_timed(watch: Watch) -> None:
    walk = LayerWalk.trace(row(), small_images())
    times = time_groups(Grouping(walk, 8), small_images(2))
    assert len(watch.calls) == 3
    assert times["2"] == times["4"] == {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
    assert times["6"] == {1: 2.0, 2: 2.0, 4: 2.0, 8: 2.0}
    assert times["8"] == {1: 3.0, 2: 3.0, 4: 3.0}


def test_convolutions_that_may_have_other_counts_are_not_alike(watch: Watch) -> None:
    walk = LayerWalk.trace(row(), small_images())
    times = time_groups(Grouping(walk, 8, counts={"4": [2]}), small_images(2))
    assert len(watch.calls) == 4
    assert (list(times["2"]), list(times["4"])) == ([1, 2, 4, 8], [1, 2])


def test_the_network_and_its_modes_are_left_alone() -> None:
    model = toy_resnet().train()
    model.down_bn.eval()
    model.up.weight.requires_grad_(False)
    walk = toy_walk(model)
    before = imprint(model)
    formats = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    time_groups(Grouping(walk, 4), image_set(2).images.contiguous(memory_format=torch.channels_last))
    assert imprint(model) == before
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == formats
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_hooks_are_gone_also_where_the_network_fails() -> None:
    model = toy_resnet()
    grouping = Grouping(toy_walk(model), 4)
    with pytest.raises(RuntimeError):
        time_groups(grouping, torch.zeros(1, 5, 8, 8))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_time_of_a_count_is_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    def fewer_rounds(models: Mapping[str, nn.Module], images: Tensor) -> dict[str, Latency]:
        found = measure_latency(models, images, rounds=1, warmup=0)
        return {name: Latency(0.5, 0.1 * one.median, 9.0) for name, one in found.items()}

    monkeypatch.setattr(group_times, "measure_latency", fewer_rounds)
    times = time_groups(Grouping(toy_walk(), 2), image_set(2).images)
    assert {seconds for found in times.values() for seconds in found.values()} == {0.5}


def test_counts_are_faster_from_a_twentieth_on_and_one_is_always_among_them() -> None:
    times = {"a": {1: 1.0, 2: 0.951, 4: 0.95, 8: 0.2}, "b": {1: 1.0, 2: 3.0}, "c": {1: 2.0, 3: 1.9, 6: 1.95}}
    assert faster_counts(times) == {"a": [1, 4, 8], "b": [1], "c": [1, 3]}


def test_a_grouping_of_the_faster_counts_has_no_others() -> None:
    walk = toy_walk()
    times = time_groups(Grouping(walk, 4), image_set(2).images)
    times["mid"] = {1: 1.0, 2: 2.0, 4: 0.5}
    found = {one.name: one.counts for one in Grouping(walk, 4, counts=faster_counts(times)).convolutions}
    assert found["mid"] == {1, 4}
