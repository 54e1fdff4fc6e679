"""What watches a search: the TensorBoard log, and the run's page, which a reload shows as it is by then."""

from collections.abc import Iterator
from contextlib import contextmanager

from prune_env.env.trial import Trial
from prune_env.report.board import watch_on_board
from prune_env.report.live import LivePage
from prune_env.report.page import write_report
from prune_env.report.vega import vega_script
from prune_env.runs.searching import SearchRun
from prune_env.search.episode import Listener


@contextmanager
def watch_search(search: SearchRun) -> Iterator[Listener]:
    """Logs a search to TensorBoard and keeps its page up to date; a `prune_env.runs.searching.Watch`."""
    vega_script()  # before the search: making the script takes seconds once, which are not the search's
    page, problem = LivePage(lambda: write_report(search.run)), search.problem

    def hear(_: Trial) -> None:
        if not problem.recalling:
            page.tick()

    problem.listeners.append(hear)
    try:
        with watch_on_board(search) as board:
            yield board
    finally:
        problem.listeners.remove(hear)
