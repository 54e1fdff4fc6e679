"""Small sets: an epoch has enough steps, by smaller batches first and by more passes then."""

import pytest
from practice import settings_of

from prune_env.recover.small_sets import LEAST_BATCH, LEAST_STEPS, for_small_set


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("given", [4, 64, 128])
@pytest.mark.parametrize("images", [3, 20, 100, 511, 700, 4095, 4096, 50_000])
def test_an_epoch_has_enough_steps_and_no_batch_is_larger_than_given(images: int, given: int, processes: int) -> None:
    settings = settings_of(batch_size=given)
    found, steps = for_small_set(settings, images, processes)
    assert found == settings.model_copy(update={"batch_size": found.batch_size})
    assert 1 <= found.batch_size <= given
    if images >= LEAST_STEPS * given:
        assert (found.batch_size, steps) == (given, None)
        return
    assert steps is not None
    assert steps >= LEAST_STEPS
    assert found.batch_size % processes == 0 or found.batch_size == given
    # No image is passed over twice where batches could still be smaller.
    assert steps * found.batch_size <= images or found.batch_size <= max(LEAST_BATCH, given % LEAST_BATCH)
