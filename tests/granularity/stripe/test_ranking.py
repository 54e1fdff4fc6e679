"""The order in which a unit's stripes stay, and what any number of them costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_env.granularity.stripe.ranking import LayerStripes, Ranking


def skeleton(filters: int, positions: int, seed: int = 0, layer: str = "a") -> LayerStripes:
    strength = np.random.default_rng(seed).random((filters, positions))
    return LayerStripes(layer, strength, np.arange(filters))


def ranked(*skeletons: LayerStripes) -> Ranking:
    keys = [one.keys(one.strength.sum(axis=1)) for one in skeletons]
    return Ranking(skeletons, keys, 1 + max(int(one.channels.max()) for one in skeletons))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.01, 4.0))
def test_what_is_above_a_threshold_is_what_the_published_rule_keeps(seed: int, threshold: float) -> None:
    one = skeleton(6, 9, seed)
    ranking = ranked(one)
    relative = one.strength / one.strength.mean()
    strengths = one.strength.sum(axis=1)
    thresholds = threshold * strengths.mean() / strengths
    published = relative > thresholds[:, None]
    count = ranking.above(threshold)
    assert count == published.sum()
    if count:
        _, (mask,) = ranking.chosen(count, int(ranking.alive[count]))
        assert np.array_equal(mask, published)


def test_a_strong_filter_keeps_a_stripe_that_a_weak_one_loses() -> None:
    strength = np.array([[1.0, 1.0, 1.0, 0.5], [0.1, 0.1, 0.1, 0.5]])
    _, (mask,) = ranked(LayerStripes("a", strength, np.arange(2))).chosen(4, 1)
    assert mask.tolist() == [[True] * 4, [False] * 4]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_counts_are_those_of_the_chosen_stripes(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    ranking = ranked(skeleton(5, 9, seed), skeleton(5, 4, seed + 1, "b"))
    stripes = data.draw(st.integers(1, ranking.total))
    width = data.draw(st.integers(int(ranking.alive[stripes]), 5))
    kept, masks = ranking.chosen(stripes, width)
    assert len(kept) == width
    assert [int(mask.sum()) for mask in masks] == ranking.counts(stripes, width).tolist()
    for mask in masks:
        assert not mask[np.setdiff1d(np.arange(5), kept)].any()
        assert mask.any(), "a layer lost its strongest stripe"
    assert set(np.flatnonzero(np.any([mask.any(axis=1) for mask in masks], axis=0))) == set(kept.tolist())


def test_equal_sharing_leaves_every_filter_as_many() -> None:
    one = skeleton(6, 9)
    ranking = Ranking([one], [one.equal_keys()], 6)
    for each in range(1, 10):
        _, (mask,) = ranking.chosen(6 * each, 6)
        assert mask.sum(axis=1).tolist() == [each] * 6
        strongest = np.sort(one.strength, axis=1)[:, -each:].sum(axis=1)
        assert (one.strength * mask).sum(axis=1) == pytest.approx(strongest)


def test_dead_stripes_never_stay_before_others() -> None:
    strength = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    ranking = ranked(LayerStripes("a", strength, np.arange(3)))
    assert ranking.above(0.0) == 3
    kept, (mask,) = ranking.chosen(3, 2)
    assert kept.tolist() == [0, 2]
    assert np.array_equal(mask, strength > 0)


def test_a_layer_without_any_strength_still_has_an_order() -> None:
    ranking = ranked(LayerStripes("a", np.zeros((3, 4)), np.arange(3)))
    assert ranking.above(0.0) == 0
    kept, (mask,) = ranking.chosen(1, 1)
    assert kept.tolist() == [0]
    assert mask.sum() == 1
