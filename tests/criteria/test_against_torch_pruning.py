"""Comparison with Torch-Pruning where its definitions agree with the papers', and tests of the differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from toy import ImageSet
from zoo import Net, body, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, score_channels

DATA = ImageSet(small_images(1, seed=3), torch.tensor([2]))


def net() -> Net:
    """A plain unit ``a`` of 8 channels with a batch norm."""
    return body(lambda _, x: x).eval()


def theirs(importance: tp.importance.Importance, model: Net) -> np.ndarray:
    graph = tp.DependencyGraph().build_dependency(model, small_images())
    group = graph.get_pruning_group(model.a, tp.prune_conv_out_channels, idxs=list(range(8)))
    return importance(group).detach().double().numpy()


def ours(name: str, model: Net) -> np.ndarray:
    walk = LayerWalk.trace(model, small_images(), {"z": "it has no batch norm"})
    return score_channels(name, ScoringContext(walk, DATA))["a"]


@pytest.mark.parametrize(("name", "power", "exponent"), [("l1", 1, 1.0), ("l2", 2, 0.5)])
def test_norms_agree(name: str, power: int, exponent: float) -> None:
    model = net()
    importance = tp.importance.MagnitudeImportance(p=power, group_reduction="first", normalizer=None)
    assert ours(name, model) == pytest.approx(theirs(importance, model) ** exponent, rel=1e-5)


def test_batch_norm_scales_agree() -> None:
    model = net()
    importance = tp.importance.BNScaleImportance(group_reduction="sum", normalizer=None)
    assert ours("bn_scale", model) == pytest.approx(theirs(importance, model), rel=1e-6)


def test_geometric_medians_agree_on_weights_of_one_sign_alone() -> None:
    """Torch-Pruning uses distances between |w|^p, so a filter and its negative have distance 0."""
    model = net()
    importance = tp.importance.FPGMImportance(p=1, group_reduction="first", normalizer=None)
    assert ours("geometric_median", model) != pytest.approx(theirs(importance, model), rel=0.05)
    with torch.no_grad():
        model.a.weight.abs_()
    assert ours("geometric_median", model) == pytest.approx(theirs(importance, model), rel=1e-4)
    assert ours("geometric_median", model) != pytest.approx(
        theirs(tp.importance.FPGMImportance(group_reduction="first", normalizer=None), model), rel=0.05
    )


def test_taylor_agrees_on_one_image_without_batch_norm() -> None:
    """Without a bias, sum w dL/dw over weights equals sum z dL/dz over positions; Torch-Pruning does not square it."""
    model = net()
    model.bn = torch.nn.Identity()
    expected = ours_on_plain(model)
    F.cross_entropy(model(DATA.images), DATA.targets).backward()
    importance = tp.importance.TaylorImportance(group_reduction="first", normalizer=None, multivariable=True)
    assert expected == pytest.approx(theirs(importance, model) ** 2, rel=1e-3)
    # Torch-Pruning's default sums |w dL/dw| over single weights, which is not the paper's score of a filter.
    default = tp.importance.TaylorImportance(group_reduction="first", normalizer=None)
    assert np.argsort(expected).tolist() != np.argsort(theirs(default, model)).tolist()


def ours_on_plain(model: Net) -> np.ndarray:
    return score_channels("taylor", ScoringContext(LayerWalk.trace(model, small_images()), DATA))["a"]
