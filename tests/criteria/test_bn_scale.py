"""BN scale: |gamma| over all batch norms of a unit; a free unit without batch norms is refused."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import nn
from toy import toy_resnet, toy_walk
from zoo import Net, body, conv, small_images

from prune_env import LayerWalk
from prune_env.common.errors import ConfigError, UserError
from prune_env.criteria import ScoringContext, score_channels


def gamma(*norms: nn.Module) -> np.ndarray:
    """The sum of |gamma| over batch norms, [channels]."""
    return np.sum([norm.weight.detach().abs().double().numpy() for norm in norms], axis=0)


def walk_of(net: Net, protect: Iterable[str] = ("z",)) -> LayerWalk:
    return LayerWalk.trace(net, small_images(), dict.fromkeys(protect, "it has no batch norm"))


def test_a_plain_unit_is_scored_by_its_batch_norm_whatever_the_sign() -> None:
    net = body(lambda _, x: x)
    with torch.no_grad():
        net.bn.weight[3] = -7.0
    scores = score_channels("bn_scale", ScoringContext(walk_of(net)))
    assert scores["a"] == pytest.approx(gamma(net.bn))
    assert scores["a"].argmax() == 3


def test_a_unit_with_a_depthwise_layer_is_scored_by_the_batch_norms_of_both() -> None:
    net = body(lambda net, x: net.dbn(net.d(x)), d=conv(8, 8, groups=8), dbn=nn.BatchNorm2d(8))
    assert score_channels("bn_scale", ScoringContext(walk_of(net)))["a"] == pytest.approx(gamma(net.bn, net.dbn))


def test_a_slot_is_scored_by_the_sum_over_all_groups() -> None:
    net = body(lambda net, x: net.g(x), 12, g=conv(8, 12, groups=4))
    expected = gamma(net.bn).reshape(4, 2).sum(axis=0)
    assert score_channels("bn_scale", ScoringContext(walk_of(net, ["z", "g"])))["a"] == pytest.approx(expected)


def test_a_coupled_unit_is_scored_by_the_batch_norms_that_it_has() -> None:
    walk = toy_walk(protect={"mid": "it has no batch norm"})
    assert score_channels("bn_scale", ScoringContext(walk))["up"] == pytest.approx(gamma(walk.model.up_bn))


def test_protected_units_without_a_batch_norm_get_zeros() -> None:
    scores = score_channels("bn_scale", ScoringContext(walk_of(body(lambda _, x: x))))
    assert scores["z"].tolist() == [0.0] * 6
    assert scores["fc"].tolist() == [0.0] * 4


def test_a_free_unit_without_one_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"criterion\.name: 'bn_scale' .*'mid' has no batch norm.*'l1'.*env\.protect"):
        score_channels("bn_scale", ScoringContext(toy_walk()))


def test_a_batch_norm_without_a_scale_is_none() -> None:
    net = toy_resnet()
    net.down_bn = nn.BatchNorm2d(12, affine=False)
    with pytest.raises(ConfigError, match="unit 'down' has no batch norm with a scale"):
        score_channels("bn_scale", ScoringContext(toy_walk(net)))


def test_a_scale_that_is_not_finite_is_refused_with_the_unit() -> None:
    net = body(lambda _, x: x)
    walk = walk_of(net)
    with torch.no_grad():
        net.bn.weight[1] = math.nan
    with pytest.raises(UserError, match="'bn_scale' gave unit 'a' a score that is not finite"):
        score_channels("bn_scale", ScoringContext(walk))
