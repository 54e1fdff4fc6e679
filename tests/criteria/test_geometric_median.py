"""Geometric median: the sum of a filter's distances to all others."""

import numpy as np
import pytest
import torch
from torch import nn
from toy import image_set, toy_walk
from zoo import body, chain, conv, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, score_channels


def rows(module: nn.Module) -> np.ndarray:
    return module.weight.detach().flatten(1).double().numpy()


def distances(filters: np.ndarray) -> np.ndarray:
    return np.array([sum(np.linalg.norm(one - other) for other in filters) for one in filters])


def scores_of(net: nn.Module) -> dict[str, np.ndarray]:
    return dict(score_channels("geometric_median", ScoringContext(LayerWalk.trace(net, small_images()))))


def test_the_score_of_a_plain_unit_is_that_of_its_one_layer_as_it_is() -> None:
    model = chain()
    scores = scores_of(model)
    for layer in ("0", "3", "7"):
        assert scores[layer] == pytest.approx(distances(rows(model[int(layer)])), rel=1e-6)


def test_the_score_of_a_coupled_unit_is_that_of_all_filters_laid_end_to_end() -> None:
    walk = toy_walk()
    filters = np.concatenate([rows(getattr(walk.model, part)) for part in ("up", "project", "out")], axis=1)
    # With images, batch norms could be folded into the weights, which FPGM does not do.
    for context in (ScoringContext(walk), ScoringContext(walk, image_set(4))):
        assert score_channels("geometric_median", context)["up"] == pytest.approx(distances(filters), rel=1e-6)


def test_the_score_of_a_slot_runs_over_the_slots_of_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4))
    scores = scores_of(net)
    assert scores["g"] == pytest.approx(
        distances(rows(net.g).reshape(4, 3, -1).transpose(1, 0, 2).reshape(3, -1)), rel=1e-6
    )
    assert scores["a"] == pytest.approx(
        distances(rows(net.a).reshape(4, 2, -1).transpose(1, 0, 2).reshape(2, -1)), rel=1e-6
    )


def test_the_score_of_a_unit_with_a_depthwise_layer_runs_over_its_filters_too() -> None:
    net = body(lambda net, x: net.p(net.d(x)), 10, d=conv(8, 8, groups=8), p=conv(8, 10, 1))
    assert scores_of(net)["a"] == pytest.approx(distances(np.concatenate([rows(net.a), rows(net.d)], axis=1)), rel=1e-6)


def test_the_filter_amid_the_others_goes_first_and_not_the_smallest() -> None:
    model = chain()
    with torch.no_grad():
        # Seven filters lie around a point far from zero, and one filter lies at this point.
        model[0].weight += 1.0
        model[0].weight[2] = model[0].weight.mean(dim=0)
        model[0].weight[5] = 0.0
    scores = scores_of(model)["0"]
    assert scores.argmin() == 2
    assert scores.argmax() == 5


def test_filters_that_are_alike_count_as_no_distance() -> None:
    model = chain()
    with torch.no_grad():
        model[0].weight[:] = model[0].weight[0].clone()
        model[0].weight[7] += 1.0
    size = model[0].weight[0].numel() ** 0.5
    assert scores_of(model)["0"] == pytest.approx([size] * 7 + [7 * size], rel=1e-5)
