"""Runs whole searches, several at a time: in processes of this machine, or on the nodes of a Ray cluster."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from prune_env.common.errors import RunError
from prune_env.common.memory import keep_freed_memory
from prune_env.search.pools.connection import connection
from prune_env.search.pools.processes import context, end_on_ctrl_c, follow_the_driver, usable_processors

Key = TypeVar("Key")
Result = TypeVar("Result")


def spread(
    search: Callable[..., Result],
    tasks: Mapping[Key, tuple[Any, ...]],
    workers: int | None,
    address: str | None = None,
    gpu: bool = False,
) -> Iterator[tuple[Key, Result]]:
    """Calls a function for each task, in processes with one thread each.

    Args:
        search: The function, defined in a module.
        tasks: The arguments of each call, by a key.
        workers: How many calls run at a time, 1 or more; None for one on each processor, or on each GPU.
        address: The Ray cluster whose nodes make the calls, as in ``run.address``; None for this machine.
        gpu: Whether each call on a cluster needs a GPU of its own.

    Yields:
        The key and the result of each call, the first finished call first.

    Raises:
        Exception: The error of a call, after the calls that run then have ended; no further ones are started.
        RunError: If a process dies.
    """
    if address is None:
        yield from _here(search, tasks, workers or usable_processors())
    else:
        yield from _on_cluster(search, tasks, workers or len(tasks), address, gpu)


def _here(
    search: Callable[..., Result], tasks: Mapping[Key, tuple[Any, ...]], workers: int
) -> Iterator[tuple[Key, Result]]:
    executor = ProcessPoolExecutor(workers, context(), initializer=_start)
    try:
        keys = {executor.submit(search, *given): key for key, given in tasks.items()}
        for future in as_completed(keys):
            yield keys[future], future.result()
    except BrokenProcessPool:
        raise RunError(
            "A process that ran a search has died, perhaps for want of memory. Repeat the command to go on, with fewer "
            "search.workers."
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _on_cluster(
    search: Callable[..., Result], tasks: Mapping[Key, tuple[Any, ...]], workers: int, address: str, gpu: bool
) -> Iterator[tuple[Key, Result]]:
    with connection(address) as ray:
        call = ray.remote(_called).options(num_cpus=1, num_gpus=int(gpu))
        waiting = list(tasks.items())
        running: dict[Any, Key] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                key, given = waiting.pop(0)
                running[call.remote(search, *given)] = key
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            result = ray.get(done)
            if isinstance(result, Exception):
                raise result
            yield running.pop(done), result


def _start() -> None:
    end_on_ctrl_c()
    follow_the_driver()
    keep_freed_memory()
    torch.set_num_threads(1)


def _called(search: Callable[..., Result], *given: Any) -> Result | Exception:
    """Calls the function on a node; an error is returned, because Ray would wrap what is raised."""
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        return search(*given)
    except Exception as error:
        return error
