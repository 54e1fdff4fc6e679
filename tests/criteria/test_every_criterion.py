"""What holds for every criterion: scores for all channels, clear refusals, and a caller left as it was."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from toy import ImageSet, image_set, toy_walk
from zoo import example, traced

import benchmarks.control_criteria
from prune_env import LayerWalk
from prune_env.common.errors import ConfigError, UserError
from prune_env.criteria import CRITERIA, ScoringContext, known_criteria, score_channels

SMALL_ONLY = ("hessian", "hessian_block")
EVERY = [name for name in known_criteria() if name not in benchmarks.control_criteria.__all__]
"""The library's own criteria; the controls are registered for their own tests."""
LOOKING = [name for name in EVERY if CRITERIA.find(name).needs != "weights"]
QUICK = ["bn_scale", "geometric_median", "activation_mean", "feature_rank", "taylor", "lobs_block"]


@cache
def scored(name: str) -> Mapping[str, np.ndarray]:
    """The context of the small network and images that the tests below use."""
    return score_channels(name, ScoringContext(small_walk(), image_set(6)))


def small_walk(reason: str = "it has no batch norm") -> LayerWalk:
    return toy_walk(protect={"mid": reason})


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_residual_network_with_shortcuts_is_scored_by_every_criterion(name: str) -> None:
    walk = traced("cifar_resnet20").walk
    scores = score_channels(name, ScoringContext(walk, image_set(2, colours=3, side=32, classes=10)))
    assert {unit: len(values) for unit, values in scores.items()} == {unit.name: unit.channels for unit in walk.units}


@pytest.mark.parametrize("name", SMALL_ONLY)
def test_exact_curvature_of_a_large_network_is_refused(name: str) -> None:
    walk = traced("cifar_resnet20").walk
    with pytest.raises(ConfigError, match=rf"'{name}' takes .* products? for each of the \d+ .* at most \d+ .*Use '"):
        score_channels(name, ScoringContext(walk, image_set(2, colours=3, side=32, classes=10)))


@pytest.mark.parametrize("name", [name for name in EVERY if CRITERIA.find(name).needs == "targets"])
def test_a_criterion_that_needs_targets_refuses_images_without_targets(name: str) -> None:
    data = ImageSet(image_set(4).images, torch.empty(0, dtype=torch.int64))
    with pytest.raises(ConfigError, match=f"'{name}' needs images with targets, but 4 images with 0 targets"):
        score_channels(name, ScoringContext(small_walk(), data))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if CRITERIA.find(name).needs == "images"])
def test_a_criterion_that_needs_images_alone_takes_images_without_targets(name: str) -> None:
    data = ImageSet(image_set(6).images, torch.empty(0, dtype=torch.int64))
    found = score_channels(name, ScoringContext(small_walk(), data))
    assert {unit: values.tolist() for unit, values in found.items()} == {
        unit: values.tolist() for unit, values in scored(name).items()
    }


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "cifar_resnet20"])
@pytest.mark.parametrize("name", QUICK)
def test_every_channel_of_every_unit_has_a_finite_score(name: str, model: str) -> None:
    found = traced(model)
    scores = score_channels(name, ScoringContext(found.walk, ImageSet(example(model, 2), torch.tensor([0, 1]))))
    assert set(scores) == {unit.name for unit in found.walk.units}
    for unit in found.walk.units:
        assert scores[unit.name].shape == (unit.channels,)
        assert scores[unit.name].dtype == np.float64
        assert np.isfinite(scores[unit.name]).all()
        assert (scores[unit.name] >= 0).all()
        # Random weights behind a ReLU6 leave many channels dead, but never all.
        if unit.free:
            assert len(np.unique(scores[unit.name])) > unit.channels // 4, unit.name


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("data", [None, image_set(0)])
def test_a_criterion_that_needs_images_refuses_to_score_without_images(name: str, data: ImageSet | None) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' needs images( with targets)?, but 0 images.*bn_scale.*l1"):
        score_channels(name, ScoringContext(toy_walk(), data))


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("random", "bn_scale")])
@pytest.mark.parametrize(("layer", "unit"), [("out", "up"), ("mid", "mid")])
def test_weights_that_are_not_finite_are_refused_with_their_unit(name: str, layer: str, unit: str) -> None:
    walk = toy_walk()
    with torch.no_grad():
        walk.model.get_submodule(layer).weight[3, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match=rf"unit '{unit}' a score that is not finite.*weights"):
        score_channels(name, ScoringContext(walk, image_set(4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LOOKING if not name.startswith(("clusters", "texture"))])
def test_images_that_are_not_finite_are_refused(name: str) -> None:
    data = image_set(4)
    data.images[2, 0, 3, 3] = math.inf
    with pytest.raises(UserError, match="not finite"):
        score_channels(name, ScoringContext(toy_walk(), data))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", EVERY)
def test_the_callers_autocast_and_gradient_mode_do_not_matter(name: str, mode: Callable[[], Any]) -> None:
    walk, data = small_walk(), image_set(6)
    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = score_channels(name, ScoringContext(walk, data))
    for unit, scores in scored(name).items():
        assert found[unit].tolist() == scores.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_network_is_left_as_it_was(name: str) -> None:
    walk = small_walk()
    walk.model.train()
    before = {key: value.clone() for key, value in walk.model.state_dict().items()}
    context = ScoringContext(walk, image_set(4))
    score_channels(name, context)
    assert all(module.training for module in walk.model.modules())
    assert all(torch.equal(before[key], value) for key, value in walk.model.state_dict().items())
    for model in (walk.model, context.folded):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
