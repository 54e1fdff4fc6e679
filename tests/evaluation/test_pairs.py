"""Two networks on the same images: McNemar's test and the interval of the difference."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from prune_env.evaluation.pairs import Pairs


def test_only_images_that_one_network_alone_gets_right_count() -> None:
    first = torch.tensor([1, 1, 1, 1, 0, 0, 0]).bool()
    second = torch.tensor([1, 0, 0, 0, 1, 1, 0]).bool()
    pairs = Pairs.of(first, second)
    assert pairs == Pairs(won=3, lost=2, images=7)
    assert pairs.difference == pytest.approx((first.float().mean() - second.float().mean()).item())


def test_the_mid_p_value_is_that_of_a_published_example() -> None:
    # Fagerland, Lydersen and Laake (2013): hyper-responsiveness of 21 children before and after a transplantation.
    assert Pairs(1, 7, 21).p_value == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (0, 5), (3, 9), (40, 60), (7, 7)])
def test_the_mid_p_value_counts_the_observed_number_by_half(won: int, lost: int) -> None:
    found = Pairs(won, lost, 1000).p_value
    assert found == Pairs(lost, won, 1000).p_value
    exact = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert 0 < found <= 1
    assert found <= exact
    assert (won == lost) == (found == pytest.approx(1.0))


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    counts = generator.multinomial(500, [0.04, 0.02, 0.94], size=2000)
    held = [low <= 0.02 <= high for low, high in (Pairs(w, lost, 500).interval for w, lost, _ in counts.tolist())]
    assert 0.93 <= np.mean(held) <= 0.975
