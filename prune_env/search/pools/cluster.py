"""The pool on a Ray cluster: actors with an evaluator of their own, on nodes that come and go while a search runs."""

import os
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prune_env.common.errors import ConfigError, RunError
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Arrival, Order, Pool
from prune_env.search.pools.worker import Bench, Worker, refusal, uniform_outcome

TRIES = 3
"""How often a plan is measured before its workers' deaths end the search."""

LATE = 4.0
"""A plan that takes this many times the usual seconds is sent to a second worker [our choice]."""

LEAST_LATE = 5.0
"""Seconds before a plan is late at the earliest [our choice]."""

LOOK = 2.0
"""Seconds between two looks at the cluster's nodes [our choice]."""

STARTING = 300.0
"""Seconds that the first worker may take to start."""

SIGNS_OF_LIFE = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A hung node is noticed after 5 s; Ray's own settings take 64 s. A head node reads them when it starts."""


@dataclass
class _Actor:
    """One worker of the cluster.

    Attributes:
        handle: Ray's handle of the actor.
        name: The actor and its node, in words.
        call: The reference that is awaited: of its start, or of a measurement.
        order: The order that it measures; None while it starts or is idle.
        since: When the call was made, by `time.monotonic`.
    """

    handle: Any
    name: str
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
        ConfigError: If Ray is not installed, there is no cluster at the address, or a part of the problem cannot be
            sent.
    """

    def __init__(self, problem: PruningProblem, address: str, workers: int | None) -> None:
        packed = Bench.of(problem).packed()
        self._ray = connected(address)
        self._gpu = problem.evaluator.device.type == "cuda"
        self._wanted = workers
        self._expected = uniform_outcome(problem.planner, problem.evaluator)
        # In a list, the reference is not resolved: a large argument would be lost with its node, and the restart fail.
        self._bench = [self._ray.put(packed)]
        self._actors: list[_Actor] = []
        self._refused: list[str] = []
        self._queue: deque[Order] = deque()
        self._open: dict[int, Order] = {}
        self._tries: dict[int, int] = {}
        self._seconds: deque[float] = deque(maxlen=50)
        self._asked_again = 0
        self._looked = -LOOK
        self._begun = time.monotonic()
        self._grow()

    @property
    def size(self) -> int:
        """Number of actors now."""
        return max(1, len(self._actors))

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
            done, _ = self._ray.wait(list(calls), num_returns=1, timeout=0.5) if calls else ([], [])
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

    def _welcome(self, actor: _Actor, started: tuple[str, Any]) -> None:
        """Uses an actor if its digits are the driver's."""
        actor.name, uniform = started
        if (reason := refusal(actor.name, uniform, self._expected)) is None:
            return
        self._refused.append(reason)
        self._actors.remove(actor)
        self._ray.kill(actor.handle)
        if not self._actors:
            raise RunError(reason)

    def _lost(self, actor: _Actor, order: Order | None, error: Exception) -> None:
        """Asks for a plan again whose actor has died, and starts another actor in its place."""
        self._actors.remove(actor)
        self._ray.kill(actor.handle)
        if order is None and not self._actors and not self._seconds and self._has_waited():
            raise RunError(f"run.address: no worker starts: {error}")
        if order is not None and order.number in self._open:
            if self._tries[order.number] >= TRIES:
                raise RunError(
                    f"Evaluation {order.number} was measured {TRIES} times, and each time its worker died ({error}). "
                    "Look at the memory of the nodes, or give fewer images in a batch (execution.batch)."
                )
            self._asked_again += 1
            self._queue.appendleft(order)

    def _dispatch(self) -> None:
        """Gives each idle actor the oldest plan that waits, or a late one."""
        idle = [actor for actor in self._actors if actor.call is None]
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
        if time.monotonic() - self._looked >= LOOK:
            self._grow()
        if not self._actors and self._has_waited():
            raise RunError("run.address: the cluster has no free processor for a worker. Start more nodes.")

    def _has_waited(self) -> bool:
        return time.monotonic() - self._begun > STARTING

    def _grow(self) -> None:
        """Starts as many actors as the cluster has room for."""
        self._looked = time.monotonic()
        kind = "GPU" if self._gpu else "CPU"
        room = int(self._ray.cluster_resources().get(kind, 0))
        room = room if self._wanted is None else min(room, self._wanted)
        for _ in range(room - len(self._actors)):
            options = {"num_cpus": 1, "num_gpus": 1 if self._gpu else 0, "max_restarts": 0, "max_task_retries": 0}
            handle = self._ray.remote(RemoteWorker).options(**options).remote(self._bench)
            self._actors.append(_Actor(handle, "starting", handle.start.remote(), since=time.monotonic()))

    def status(self) -> Mapping[str, float]:
        """Actors that have started, refused ones, and plans that were asked for again."""
        alive = sum(actor.call is None or actor.order is not None for actor in self._actors)
        return {"workers": alive, "refused": len(self._refused), "asked_again": self._asked_again}

    def close(self) -> None:
        """Ends the actors, and the connection to the cluster."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._ray.shutdown()


class RemoteWorker:
    """The actor: a worker that fetches what it measures with.

    Args:
        bench: A list of one reference to `Bench.packed`.
    """

    def __init__(self, bench: list[Any]) -> None:
        import ray

        self._worker = Worker(ray.get(bench[0]))
        context = ray.get_runtime_context()
        self._name = f"{str(context.get_actor_id())[:8]} on node {context.get_node_id()[:8]}, process {os.getpid()}"

    def start(self) -> tuple[str, Any]:
        """The actor's name and its outcome of the uniform plan."""
        return self._name, self._worker.uniform()

    def measure(self, order: Order) -> Any:
        """Measures a plan."""
        return self._worker.measure(order)


def connected(address: str) -> Any:
    """The module of Ray, connected to a cluster.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, ``local`` for a new one on this machine, or the
            address of a head node.

    Raises:
        ConfigError: If Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name, value in SIGNS_OF_LIFE.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"run.address: {address} given, but Ray is not installed. Run: pip install 'prune-env[ray]'"
        ) from None
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ConfigError(
            f"run.address: there is no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, give "
            "the address of its head node as HOST:PORT, or give local for one on this machine."
        ) from None
    return ray
