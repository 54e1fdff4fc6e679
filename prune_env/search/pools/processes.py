"""The pool of processes on one machine: each worker has one thread and an evaluator of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver

from prune_env.common.errors import RunError, UserError
from prune_env.common.variables import with_variable
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Measured
from prune_env.rewards import Outcome
from prune_env.search.pools.base import Arrival, Order, Pool
from prune_env.search.pools.worker import Bench, Worker, cannot_start, refusal, uniform_outcome

TRIES = 3
"""How often a plan is measured before its workers' deaths end the search."""

Result = tuple[Measured | Exception, str, Outcome]
"""A result, the name of its worker, and the worker's outcome of the uniform plan."""

_worker: Worker | UserError | None = None
_uniform: Outcome | None = None


class Processes(Pool):
    """Measures plans in processes of this machine.

    If a process dies, all of them are replaced, and their plans are measured again.

    Args:
        problem: The problem.
        workers: Number of processes, 1 or more.

    Raises:
        ConfigError: If a part of the problem cannot be sent.
    """

    def __init__(self, problem: PruningProblem, workers: int) -> None:
        self._workers = workers
        self._packed = Bench.of(problem).packed()
        self._expected = uniform_outcome(problem.planner, problem.evaluator)
        self._orders: dict[int, Order] = {}
        self._tries: dict[int, int] = {}
        self._futures: dict[Future[Result], int] = {}
        self._asked_again = 0
        self._executor = self._started()

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._workers

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, context(), initializer=_start, initargs=(self._packed,))

    def submit(self, order: Order) -> None:
        """Sends an order to the next free process."""
        self._orders[order.number], self._tries[order.number] = order, 0
        self._send(order)

    def _send(self, order: Order) -> None:
        """Sends an order; if a process has died, `wait` notices it and sends the order again."""
        self._tries[order.number] += 1
        try:
            future = self._executor.submit(_measure, order.to_send())
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._futures[future] = order.number

    def wait(self) -> Arrival:
        """Waits for the next result; replaces the processes if one of them has died."""
        while True:
            done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
            # Of several, the oldest: it is the one that the search waits for.
            future = min(done, key=lambda one: self._futures[one])
            try:
                result, name, uniform = future.result()
            except BrokenProcessPool:
                self._replace()
                continue
            if (reason := refusal(name, uniform, self._expected)) is not None:
                raise RunError(reason)
            number = self._futures.pop(future)
            del self._orders[number], self._tries[number]
            return Arrival(number, result)

    def _replace(self) -> None:
        """Starts new processes and sends them all orders that are without a result."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._futures.clear()
        for number, tries in self._tries.items():
            if tries >= TRIES:
                raise RunError(
                    f"Evaluation {number} was measured {tries} times, and each time a worker process died, perhaps for "
                    "want of memory. Give fewer search.workers, or fewer images in a batch (execution.batch)."
                )
        self._executor = self._started()
        for order in self._orders.values():
            self._send(order)
            self._asked_again += 1

    def status(self) -> Mapping[str, float]:
        """Processes, and plans that were asked for again."""
        return {"workers": self._workers, "asked_again": self._asked_again}

    def close(self) -> None:
        """Ends the processes, after the plans that they are measuring."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def usable_processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def context() -> multiprocessing.context.ForkServerContext:
    """Starts processes from a server that has imported torch."""
    # Not fork: a process that has run torch holds threads that a fork would lose. The server imports torch once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    # A terminal sends Ctrl-C to all processes; the server would print a traceback while it imports torch. And without
    # the variable, it imports a module of the working directory in place of a package of the same name.
    with _without_ctrl_c(), with_variable("PYTHONSAFEPATH", "1"):
        forkserver.ensure_running()
    return context


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Within, new processes ignore Ctrl-C, until they say otherwise."""
    if threading.current_thread() is not threading.main_thread():  # Python lets only the main thread decide
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_on_ctrl_c() -> None:
    """Lets Ctrl-C end this process at once and silently: its driver tells the user."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def _start(packed: bytes) -> None:
    """Prepares a worker process."""
    global _worker
    end_on_ctrl_c()
    follow_the_driver()
    try:
        _worker = Worker(packed)
    except Exception as error:
        _worker = cannot_start(f"process {os.getpid()}", error)


def follow_the_driver() -> None:
    """Lets this process end when the driver is killed, which cannot end its workers itself."""
    threading.Thread(target=_end_with_the_driver, daemon=True).start()


def _end_with_the_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _measure(order: Order) -> Result:
    """Measures an order in a worker process."""
    global _uniform
    assert _worker is not None
    if isinstance(_worker, UserError):
        raise _worker
    if _uniform is None:
        _uniform = _worker.uniform()
    return _worker.measure(order), f"process {os.getpid()}", _uniform
