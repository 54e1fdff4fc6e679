"""What watches a search: TensorBoard, the other loggers, and the page of the run, which is kept up to date."""

from collections.abc import Iterator
from contextlib import contextmanager

from prune_env.config.trust import Trust
from prune_env.env.trial import Trial
from prune_env.report.board import watch_on_board
from prune_env.report.live import LivePage
from prune_env.report.loggers import open_loggers
from prune_env.report.page import write_report
from prune_env.report.vega import vega_script
from prune_env.runs.searching import SearchRun
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener


@contextmanager
def watch_search(search: SearchRun, trust: Trust) -> Iterator[Listener]:
    """Watches a search by TensorBoard, ``run.log`` and its page.

    Args:
        search: The search.
        trust: The code that the run's settings may name.
    """
    vega_script()  # before the search: making the script takes seconds once, which are not the search's
    page, problem = LivePage(lambda: write_report(search.run, trust)), search.problem

    def hear(_: Trial) -> None:
        if not problem.recalling:
            page.tick()

    problem.listeners.append(hear)
    try:
        with watch_on_board(search) as board, open_loggers(search) as loggers:

            def listen(episode: Episode, running: Search) -> None:
                board(episode, running)
                loggers(episode, running)

            yield listen
    finally:
        problem.listeners.remove(hear)
