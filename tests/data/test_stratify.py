"""Subsets of images that hold several classes: every class keeps its share, as far as whole images allow."""

from collections import Counter

import numpy as np
import pytest

from prune_env.data.stratify import draw_stratified

GENERATOR = np.random.default_rng(0)
CHANCES = {"a": 0.9, "b": 0.4, "c": 0.1, "d": 0.02}
COMMON = [frozenset(name for name, share in CHANCES.items() if GENERATOR.random() < share) for _ in range(1000)]
EVERYTHING = np.arange(1000)


def shares(indices: np.ndarray) -> dict[str, float]:
    counts = Counter(name for index in indices for name in (COMMON[index] or {"none"}))
    return {name: count / len(indices) for name, count in counts.items()}


@pytest.mark.parametrize("count", [50, 200, 333])
def test_every_class_and_images_without_any_keep_their_share(count: int) -> None:
    drawn = draw_stratified(COMMON, EVERYTHING, count, np.random.default_rng(1))
    assert len(set(drawn.tolist())) == count
    whole, part = shares(EVERYTHING), shares(drawn)
    for name, share in whole.items():
        assert part.get(name, 0.0) * count == pytest.approx(share * count, abs=max(2.0, 0.03 * count)), name


def test_a_rare_class_is_not_lost_by_chance() -> None:
    strata = [frozenset("a")] * 996 + [frozenset("ab")] * 4
    for seed in range(5):
        drawn = draw_stratified(strata, EVERYTHING, 250, np.random.default_rng(seed))
        assert (drawn >= 996).sum() == 1


@pytest.mark.parametrize("count", [20, 50, 100])
def test_many_rare_classes_do_not_fill_a_small_subset(count: int) -> None:
    strata = [frozenset("a")] * 900 + [frozenset([f"rare {number // 2}"]) for number in range(100)]
    drawn = draw_stratified(strata, EVERYTHING, count, np.random.default_rng(0))
    assert (drawn >= 900).sum() == pytest.approx(0.1 * count, abs=2)


def test_only_available_images_are_drawn_and_the_seed_decides() -> None:
    available = EVERYTHING[::3]
    one, same, other = (draw_stratified(COMMON, available, 40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert set(one.tolist()) <= set(available.tolist())
    assert np.array_equal(one, same)
    assert not np.array_equal(np.sort(one), np.sort(other))
    assert sorted(draw_stratified(COMMON, available, len(available), np.random.default_rng(0))) == available.tolist()
