"""Feature-map rank: channels of low rank go first; among equal ranks, channels of small magnitude go first."""

import numpy as np
import pytest
import torch
from torch import nn
from toy import ImageSet, image_set, toy_walk
from zoo import body, conv, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, score_channels
from prune_env.protection.feature_ranks import feature_map_ranks

SIDE = 8


def colours_net(channels: int, classes: int = 4) -> nn.Sequential:
    """A 1x1 convolution of two colours, a 3x3 convolution that reads its output directly, and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        conv(2, channels, 1, bias=False),
        conv(channels, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


def images_of(*colours: torch.Tensor) -> ImageSet:
    """A set from the maps [N, side, side] of each colour."""
    images = torch.stack(colours, dim=1)
    return ImageSet(images, torch.arange(len(images)) % 4)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def score(net: nn.Module, data: ImageSet, name: str = "feature_rank") -> dict[str, np.ndarray]:
    return dict(score_channels(name, ScoringContext(LayerWalk.trace(net, data.images), data)))


def check_ranks(scores: np.ndarray, ranks: np.ndarray) -> None:
    """A score is a rank plus at most half of the least difference; this part orders channels of equal rank."""
    gaps = np.diff(np.unique(ranks.round(9)))
    assert (scores >= ranks - 1e-9).all()
    assert (scores <= ranks + 0.5 * gaps.min() + 1e-9).all()
    assert len(np.unique(scores)) == len(scores)


def test_channels_whose_maps_have_rank_one_come_last_however_large_they_are() -> None:
    net = colours_net(8)
    low = [1, 4, 6]
    with torch.no_grad():
        # The second colour is constant along each row.
        net[0].weight[:, 1] = 0.0
        net[0].weight[low, 0] = 0.0
        net[0].weight[low, 1] = 50.0
    data = images_of(noise(5), noise(5, 1)[:, :, :1].expand(-1, -1, SIDE))
    scores = score(net, data)["0"]
    assert set(np.argsort(scores)[:3]) == set(low)
    assert (scores[[0, 2, 3, 5, 7]] >= 1.0).all()
    assert set(np.argsort(score(net, data, "l1")["0"])[-3:]) == set(low)


def test_equal_ranks_are_in_the_order_of_magnitude() -> None:
    net = colours_net(8)
    factors = torch.tensor([3.0, -8.0, 1.0, -2.0, 6.0, 5.0, -4.0, 7.0])
    with torch.no_grad():
        net[0].weight[:] = 0.0
        net[0].weight[:, 0, 0, 0] = factors
    order = np.argsort(score(net, images_of(noise(4), noise(4, 1)))["0"])
    assert order.tolist() == factors.abs().argsort().tolist()


def test_one_rank_in_one_image_outweighs_any_magnitude() -> None:
    """The other colour lacks one rank of eight in one of 30 images, and its weights are a million times larger."""
    net = colours_net(4)
    with torch.no_grad():
        net[0].weight[:] = 0.0
        net[0].weight[0, 0], net[0].weight[1, 0] = 1e-3, 2e-3
        net[0].weight[2, 1], net[0].weight[3, 1] = 1e3, 2e3
    lacking = noise(30, 1)
    lacking[17, 5] = lacking[17, 2]
    scores = score(net, images_of(noise(30), lacking))["0"]
    assert np.argsort(scores).tolist() == [2, 3, 0, 1]
    assert scores == pytest.approx([1, 1, 1 - 1 / 240, 1 - 1 / 240], abs=0.51 / 240)


def test_dead_channels_are_worth_nothing_and_do_not_spoil_the_rest() -> None:
    net = colours_net(4)
    with torch.no_grad():
        net[0].weight[1] = 0.0
    scores = score(net, images_of(noise(3), noise(3, 1)))["0"]
    assert scores.argmin() == 1
    assert scores[1] == 0.0


def test_ranks_are_summed_over_the_layers_of_a_unit_that_show_any() -> None:
    walk, data = toy_walk(), image_set(6)
    ranks = feature_map_ranks(walk, data.images)
    scores = score_channels("feature_rank", ScoringContext(walk, data))
    assert {layer.unit for layer in ranks.values()} == {"stem", "down", "up", "mid"}
    for unit in ("stem", "down", "up", "mid"):
        expected = sum(layer.ranks for layer in ranks.values() if layer.unit == unit)
        check_ranks(scores[unit], expected)


def test_slots_are_scored_by_the_maps_of_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4))
    data = ImageSet(small_images(5), torch.tensor([0, 1, 2, 3, 0]))
    walk = LayerWalk.trace(net, data.images)
    scores = score_channels("feature_rank", ScoringContext(walk, data))
    with torch.no_grad():
        read = torch.relu(net.eval().bn(net.a(data.images)))
        ranks = torch.linalg.matrix_rank(read).double().mean(0).numpy() / SIDE
    # The unit that feeds the groups is cut by slots: channels i, i + 2, i + 4 and i + 6.
    check_ranks(scores["a"], ranks.reshape(4, 2).sum(axis=0))


def test_units_whose_maps_are_too_small_are_in_the_order_of_magnitude() -> None:
    walk = toy_walk()
    context = ScoringContext(walk, image_set(4, side=6))
    assert not any(layer.unit == "mid" for layer in feature_map_ranks(walk, context.images).values())
    scores, magnitudes = (score_channels(name, context) for name in ("feature_rank", "l1"))
    for unit in ("mid", "fc"):
        assert np.argsort(scores[unit]).tolist() == np.argsort(magnitudes[unit]).tolist()
        assert len(set(scores[unit])) == len(magnitudes[unit])
