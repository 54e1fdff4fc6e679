"""The pool on a Ray cluster: actors with an evaluator of their own, on nodes that come and go while a search runs."""

import statistics
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from prune_env.common.errors import ConfigError, RunError
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Arrival, Order, Pool
from prune_env.search.pools.connection import connection
from prune_env.search.pools.remote import RemoteWorker, Started
from prune_env.search.pools.worker import Bench, refusal, uniform_outcome

TRIES = 3
"""How often a plan is measured before its workers' deaths end the search."""

LATE = 4.0
"""A plan that takes this many times the usual seconds is sent to a second worker [our choice]."""

LEAST_LATE = 5.0
"""Seconds before a plan is late at the earliest [our choice]."""

LOOK = 2.0
"""Seconds between two looks at the cluster's nodes [our choice]."""

ALONE = 300.0
"""Seconds without any worker, at the start or when all nodes have gone, after which the search ends [our choice]."""


@dataclass
class _Actor:
    """One worker of the cluster.

    Attributes:
        handle: Ray's handle of the actor.
        name: The actor and its node, in words.
        node: Ray's identifier of its node; empty while it starts.
        refused: Whether it gives other digits or cannot measure. It stays idle, so that no other takes its place.
        call: The reference that is awaited: of its start, or of a measurement.
        order: The order that it measures; None while it starts or is idle.
        since: When the call was made, by `time.monotonic`.
    """

    handle: Any
    name: str = "starting"
    node: str = ""
    refused: bool = False
    call: Any = None
    order: Order | None = None
    since: float = 0.0


class Cluster(Pool):
    """Measures plans on a Ray cluster.

    Args:
        problem: The problem.
        address: As in ``run.address``.
        workers: Number of actors; None for one on each processor, or on each GPU if the problem runs on a GPU.

    Raises:
        ConfigError: If Ray is not installed, there is no cluster at the address, a part of the problem cannot be
            sent, or the device is one GPU of several.
    """

    def __init__(self, problem: PruningProblem, address: str, workers: int | None) -> None:
        device = problem.evaluator.device
        if device.index is not None:
            raise ConfigError(
                f"run.device: {device} given with run.address: each worker of a cluster has a GPU of its own, which it "
                "sees as the first one. Give run.device=cuda."
            )
        packed = Bench.of(problem).packed()
        self._open_connection = ExitStack()
        self._ray = self._open_connection.enter_context(connection(address))
        self._gpu = device.type == "cuda"
        self._wanted = workers
        self._expected = uniform_outcome(problem.planner, problem.evaluator)
        # In a list, the reference is not resolved: a large argument would be lost with its node, and the restart fail.
        self._bench = [self._ray.put(packed)]
        self._actors: list[_Actor] = []
        self._queue: deque[Order] = deque()
        self._open: dict[int, Order] = {}
        self._tries: dict[int, int] = {}
        self._seconds: deque[float] = deque(maxlen=50)
        self._asked_again = 0
        self._looked = -LOOK
        self._failed_starts = 0
        self._alive = time.monotonic()
        self._grow()

    @property
    def size(self) -> int:
        """Number of actors now, at least 1."""
        return max(1, sum(not actor.refused for actor in self._actors))

    def submit(self, order: Order) -> None:
        """Queues an order for the next idle actor."""
        self._open[order.number], self._tries[order.number] = order, 0
        self._queue.append(order)
        self._dispatch()

    def wait(self) -> Arrival:
        """Waits for the next result; sends late plans twice, and those of dead actors again."""
        while True:
            self._dispatch()
            calls = {actor.call: actor for actor in self._actors if actor.call is not None}
            if calls:
                done, _ = self._ray.wait(list(calls), num_returns=1, timeout=0.5)
            else:
                done = []
                time.sleep(0.1)
            for call in done:
                if (arrival := self._landed(calls[call])) is not None:
                    return arrival
            self._look()

    def _landed(self, actor: _Actor) -> Arrival | None:
        """Takes the result of an actor's call; None if it is of a start, of a dead actor, or known."""
        order, call = actor.order, actor.call
        actor.order = actor.call = None
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._lost(actor, order, error)
            return None
        if order is None:
            self._welcome(actor, result)
            return None
        if order.number not in self._open:
            return None
        del self._open[order.number], self._tries[order.number]
        self._seconds.append(time.monotonic() - actor.since)
        return Arrival(order.number, result)

    def _welcome(self, actor: _Actor, started: Started) -> None:
        """Uses an actor if its digits are the driver's."""
        actor.name, actor.node, uniform = started
        reason = str(uniform) if isinstance(uniform, Exception) else refusal(actor.name, uniform, self._expected)
        if reason is None:
            self._failed_starts = 0
            return
        actor.refused = True
        if all(one.refused for one in self._actors):
            raise RunError(reason)

    def _remove(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self._ray.kill(actor.handle)

    def _lost(self, actor: _Actor, order: Order | None, error: Exception) -> None:
        """Asks for a plan again whose actor has died; `_look` starts another actor in its place."""
        self._remove(actor)
        if order is None:
            self._failed_starts += 1
            if self._failed_starts >= TRIES and not self._started:
                raise RunError(f"run.address: no worker starts on the cluster: {error}")
        elif order.number in self._open:
            if self._tries[order.number] >= TRIES:
                raise RunError(
                    f"Evaluation {order.number} was measured {TRIES} times, and each time its worker died ({error}). "
                    "Look at the memory of the nodes, or give fewer images in a batch (execution.batch)."
                )
            self._asked_again += 1
            self._queue.appendleft(order)

    def _dispatch(self) -> None:
        """Gives each idle actor the oldest plan that waits, or a late one."""
        idle = [actor for actor in self._actors if actor.call is None and not actor.refused]
        for actor in idle:
            order = self._queue.popleft() if self._queue else self._late()
            if order is None:
                return
            if order.number in self._open:
                self._send(actor, order)

    def _send(self, actor: _Actor, order: Order) -> None:
        self._tries[order.number] += 1
        actor.order, actor.since = order, time.monotonic()
        actor.call = actor.handle.measure.remote(order.to_send())

    def _late(self) -> Order | None:
        """A plan that has been measured for far too long, by one actor; outcomes are pure, so the first one counts."""
        usual = statistics.median(self._seconds) if self._seconds else LEAST_LATE
        limit, now = max(LEAST_LATE, LATE * usual), time.monotonic()
        busy = [actor for actor in self._actors if actor.order is not None]
        measured = [actor.order.number for actor in busy if actor.order is not None]
        for actor in busy:
            order = actor.order
            if order is None or order.number not in self._open or measured.count(order.number) > 1:
                continue
            if now - actor.since > limit and self._tries[order.number] < TRIES:
                self._asked_again += 1
                return order
        return None

    def _look(self) -> None:
        """Starts actors on nodes that have come."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._grow()
        if self._started:
            self._alive = now
        elif now - self._alive > ALONE:
            raise RunError(
                f"run.address: no worker has started for {ALONE:.0f} s: the cluster has no free "
                f"{'GPU' if self._gpu else 'processor'}. Start more nodes, then resume the run."
            )

    @property
    def _started(self) -> int:
        """How many actors have started and are used."""
        return sum(bool(actor.node) and not actor.refused for actor in self._actors)

    def _grow(self) -> None:
        """Starts as many actors as the cluster has room for."""
        self._looked = time.monotonic()
        kind = "GPU" if self._gpu else "CPU"
        nodes = {node["NodeID"]: node["Resources"].get(kind, 0) for node in self._ray.nodes() if node["Alive"]}
        for actor in [one for one in self._actors if one.refused and one.node not in nodes]:
            self._remove(actor)
        room = int(sum(nodes.values()))
        room = room if self._wanted is None else min(room, self._wanted)
        for _ in range(room - len(self._actors)):
            options = {"num_cpus": 1, "num_gpus": 1 if self._gpu else 0, "max_restarts": 0, "max_task_retries": 0}
            handle = self._ray.remote(RemoteWorker).options(**options).remote(self._bench)
            self._actors.append(_Actor(handle, call=handle.start.remote(), since=time.monotonic()))

    def status(self) -> Mapping[str, float]:
        """Actors that have started, refused ones, and plans that were asked for again."""
        return {
            "workers": self._started,
            "refused": sum(one.refused for one in self._actors),
            "asked_again": self._asked_again,
        }

    def close(self) -> None:
        """Ends the actors, and the connection to the cluster if this pool has opened it."""
        for actor in list(self._actors):
            self._remove(actor)
        self._open_connection.close()
