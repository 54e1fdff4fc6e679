"""Texture: the strength of a filter's skeleton, more for one that is unlike the others'."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy import image_set
from zoo import chain, small_images

from prune_env import LayerWalk
from prune_env.criteria import ScoringContext, score_channels


def scores_of(model: nn.Module) -> np.ndarray:
    return score_channels("texture", ScoringContext(LayerWalk.trace(model, small_images()), image_set(2, colours=3)))[
        "3"
    ]


def test_the_score_is_that_of_the_formula() -> None:
    model = chain().eval()
    skeleton = model[3].weight.detach().double().norm(dim=1).flatten(1).numpy()
    mean = skeleton.mean(axis=0)
    cosine = skeleton @ mean / (np.linalg.norm(skeleton, axis=1) * np.linalg.norm(mean))
    expected = skeleton.sum(axis=1) * (1 + np.arccos(cosine) / (math.pi / 2))
    assert scores_of(model) == pytest.approx(expected, rel=1e-6)


def test_of_two_filters_of_one_strength_the_odd_one_scores_higher() -> None:
    model = chain().eval()
    with torch.no_grad():
        model[3].weight.fill_(0.1)
        model[3].weight[2] = 0.0
        model[3].weight[2, :, 0, 0] = 0.9
    scores = scores_of(model)
    skeleton = model[3].weight.detach().double().norm(dim=1).flatten(1).sum(dim=1)
    assert skeleton[2] == pytest.approx(float(skeleton[0]))
    assert scores[2] > 1.1 * scores[0]


def test_filters_of_one_position_are_scored_by_their_strength() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    scores = score_channels("texture", ScoringContext(LayerWalk.trace(model, small_images()), image_set(2, colours=3)))[
        "0"
    ]
    assert scores == pytest.approx(model[0].weight.detach().flatten(1).norm(dim=1).numpy(), rel=1e-5)
