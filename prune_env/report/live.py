"""Keeps the page of a run up to date while it runs, so that a reload shows its state."""

import errno
import time
import warnings
from collections.abc import Callable

from prune_env.common.errors import PageWarning

LEAST_SECONDS = 10.0
"""Least seconds between two pages of a run [our choice]."""

LARGEST_SHARE = 0.02
"""The largest share of a run's time that goes into its pages while it runs [our choice]."""


class LivePage:
    """Writes a page now and then; give `tick` to what reports progress.

    A page is a view of the run's files. If it cannot be written, the run goes on without it, with a `PageWarning`. A
    full disk is told once, by what must be written: the run's own files, or the page at its end.

    Args:
        write: Writes the page.
        clock: The seconds since some moment.
    """

    def __init__(self, write: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next = -float("inf")

    def tick(self, *_: object) -> None:
        """Writes the page, unless the last one is recent; the first call always does."""
        started = self._clock()
        if started < self._next:
            return
        try:
            self._write()
        except Exception as error:  # a page must not end a search of many hours
            if not _for_want_of_room(error):
                warnings.warn(f"the page of the run is not written any more: {error}", PageWarning, stacklevel=2)
            self._next = float("inf")
            return
        ended = self._clock()
        self._next = ended + max(LEAST_SECONDS, (ended - started) / LARGEST_SHARE)


def _for_want_of_room(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota that is used up, is the reason of an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
