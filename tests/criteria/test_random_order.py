"""Random: an order that depends on the seed and on nothing else."""

import numpy as np
import pytest
from toy import toy_walk
from zoo import traced

from prune_env.criteria import CRITERIA, ScoringContext, score_channels


def test_the_seed_decides_the_order() -> None:
    walk = toy_walk()
    first, again, other = (score_channels("random", ScoringContext(walk, seed=seed)) for seed in (1, 1, 2))
    for unit in walk.units:
        assert first[unit.name].tolist() == again[unit.name].tolist()
        assert first[unit.name].tolist() != other[unit.name].tolist()
    assert CRITERIA.find("random").random
    assert not any(CRITERIA.find(name).random for name in ("l1", "l2", "bn_scale", "taylor", "feature_rank"))


def test_units_of_equal_width_have_orders_of_their_own() -> None:
    scores = score_channels("random", ScoringContext(traced("cifar_resnet20").walk))
    orders = {tuple(np.argsort(values)) for values in scores.values() if len(values) == 16}
    assert len(orders) == sum(len(values) == 16 for values in scores.values()) > 1


def test_the_numbers_are_spread_evenly() -> None:
    walk = traced("resnet18").walk
    values = np.concatenate(list(score_channels("random", ScoringContext(walk)).values()))
    assert len(values) > 3000
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert np.histogram(values, bins=10, range=(0, 1))[0] / len(values) == pytest.approx([0.1] * 10, abs=0.02)


def test_every_channel_is_kept_about_as_often() -> None:
    walk = toy_walk()
    kept = np.zeros(8)
    for seed in range(400):
        kept[list(walk.plan({"stem": 2}, score_channels("random", ScoringContext(walk, seed=seed))).kept["stem"])] += 1
    assert kept / 400 == pytest.approx([0.25] * 8, abs=0.09)
