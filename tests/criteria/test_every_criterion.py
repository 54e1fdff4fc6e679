"""What holds for every criterion of a channel's own: scores for all channels, and clear refusals."""

import math

import numpy as np
import pytest
import torch
from toy import ImageSet, image_set, toy_walk
from zoo import example, traced

from prune_env.criteria import Subject, score_channels
from prune_env.errors import ConfigError, UserError

LOOKING = ["activation_mean", "feature_rank", "taylor"]
"""Those that need images."""

ALL = ["bn_scale", "geometric_median", *LOOKING]


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "cifar_resnet20"])
@pytest.mark.parametrize("name", ALL)
def test_every_channel_of_every_unit_has_a_finite_score(name: str, model: str) -> None:
    found = traced(model)
    scores = score_channels(name, Subject(found.walk, ImageSet(example(model, 2), torch.tensor([0, 1]))))
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
def test_one_that_needs_images_refuses_without_them(name: str, data: ImageSet | None) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' looks at labelled images, and none are given.*bn_scale.*l1"):
        score_channels(name, Subject(toy_walk(), data))


@pytest.mark.parametrize("name", ["geometric_median", *LOOKING])
@pytest.mark.parametrize(("layer", "unit"), [("out", "up"), ("mid", "mid")])
def test_weights_that_are_not_finite_are_refused_with_their_unit(name: str, layer: str, unit: str) -> None:
    walk = toy_walk()
    with torch.no_grad():
        walk.model.get_submodule(layer).weight[3, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match=rf"unit '{unit}' a score that is not finite.*weights"):
        score_channels(name, Subject(walk, image_set(4)))


@pytest.mark.parametrize("name", LOOKING)
def test_images_that_are_not_finite_are_refused(name: str) -> None:
    data = image_set(4)
    data.images[2, 0, 3, 3] = math.inf
    with pytest.raises(UserError, match="not finite"):
        score_channels(name, Subject(toy_walk(), data))


@pytest.mark.parametrize("name", LOOKING)
def test_the_callers_autocast_and_gradient_mode_do_not_matter(name: str) -> None:
    walk, data = toy_walk(), image_set(6)
    expected = score_channels(name, Subject(walk, data))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = score_channels(name, Subject(walk, data))
    for unit, scores in expected.items():
        assert found[unit].tolist() == scores.tolist()


@pytest.mark.parametrize("name", ALL)
def test_the_network_is_left_as_it_was(name: str) -> None:
    walk = toy_walk(protect={"mid": "it has no batch norm"})
    walk.model.train()
    before = {key: value.clone() for key, value in walk.model.state_dict().items()}
    subject = Subject(walk, image_set(4))
    score_channels(name, subject)
    assert all(module.training for module in walk.model.modules())
    assert all(torch.equal(before[key], value) for key, value in walk.model.state_dict().items())
    for model in (walk.model, subject.folded):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
