import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prune_env.agents.exploration import NoiseSchedule, truncated_normal


@given(mean=st.floats(-1, 1), sigma=st.floats(1e-3, 10), seed=st.integers(0, 1000))
def test_noise_never_leaves_the_action_space(mean, sigma, seed):
    draws = truncated_normal(np.full(50, mean, np.float32), sigma, np.random.default_rng(seed))
    assert np.isfinite(draws).all()
    assert (np.abs(draws) <= 1.0).all()


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.3), (0.9, 0.5), (-1.0, 1.0)])
def test_noise_follows_the_truncated_normal_distribution(mean, sigma):
    draws = truncated_normal(np.full(4000, mean, np.float32), sigma, np.random.default_rng(0))
    expected = stats.truncnorm((-1 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
    assert stats.kstest(draws, expected.cdf).pvalue > 0.01


def test_noise_does_not_pile_up_on_the_bounds_as_clipping_would():
    draws = truncated_normal(np.full(4000, 0.95, np.float32), 0.5, np.random.default_rng(0))
    assert (np.abs(draws) > 0.9999).mean() < 0.01


def test_no_noise_leaves_the_mean():
    mean = np.array([0.25, -0.5], np.float32)
    assert np.array_equal(truncated_normal(mean, 0.0, np.random.default_rng(0)), mean)


def test_the_noise_falls_by_episode_after_the_warm_up_and_stops_at_its_floor():
    schedule = NoiseSchedule(start=0.5, decay=0.9, floor=0.1, warmup=10)
    assert [schedule.sigma(episode) for episode in (0, 10)] == [0.5, 0.5]
    assert schedule.sigma(12) == pytest.approx(0.5 * 0.81)
    assert schedule.sigma(1000) == 0.1
