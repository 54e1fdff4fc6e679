"""A page that is written while its run goes on: rarely, and never at the cost of the run."""

import errno
import warnings
from itertools import pairwise

import pytest

from prune_env.common.errors import RunError
from prune_env.report.live import LARGEST_SHARE, LEAST_SECONDS, LivePage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.01, 3.0])
def test_pages_take_a_small_share_of_the_time(cost):
    clock, written = Clock(), []

    def write() -> None:
        written.append(clock.now)
        clock.now += cost

    page = LivePage(write, clock)
    while clock.now < 1000:
        page.tick()
        clock.now += 0.5
    assert written[0] == 0.0
    gaps = [later - earlier for earlier, later in pairwise(written)]
    assert len(written) > 3
    assert min(gaps) >= max(LEAST_SECONDS, cost / LARGEST_SHARE)
    assert max(gaps) <= max(LEAST_SECONDS, cost / LARGEST_SHARE) + cost + 0.5


def test_a_page_that_cannot_be_written_does_not_end_the_run():
    def write() -> None:
        raise OSError("the disk is full")

    page = LivePage(write, Clock())
    with pytest.warns(UserWarning, match="not written any more: the disk is full"):
        page.tick()
    with warnings.catch_warnings(action="error"):
        page.tick()


def test_a_full_disk_is_told_by_the_run_s_own_files():
    def write() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RunError("cannot write 'report.html'") from None

    with warnings.catch_warnings(action="error"):
        LivePage(write, Clock()).tick()
