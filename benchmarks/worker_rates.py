"""Evaluations a second against plans in flight, beside Ray Tune: `python -m benchmarks.worker_rates`.

Evaluators sleep, so that hundreds of them are in flight on one machine: up to `SLOTS` in each process. Ray Tune starts
a process for each trial, so it is measured up to ``--tune`` in flight. Ray Tune needs `pip install 'ray[tune]'`.
"""

import tempfile
import time
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.sleepers import evaluations_per_second, rate_of, sleepy_problem
from prune_env.commands.common import between_commas, console, notice, results, run_command
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.cluster import Cluster, _Actor
from prune_env.search.pools.remote import RemoteWorker

SLOTS = 16

Seconds = Annotated[float, typer.Option(min=0.01, help="Seconds that each evaluation sleeps.")]
InFlight = Annotated[str, typer.Option(help="Comma-separated numbers of plans in flight.")]
UpTo = Annotated[int, typer.Option(min=0, help="The most trials of Ray Tune in flight; 0 leaves Ray Tune out.")]
Rounds = Annotated[int, typer.Option(min=3, help="Evaluations for each plan in flight; the first third is not timed.")]


class SleepingCluster(Cluster):
    """A cluster of this machine whose processes run several sleeping workers each, as threads."""

    def __init__(self, problem: PruningProblem, in_flight: int) -> None:
        self._in_flight = in_flight
        super().__init__(problem, "local", in_flight)

    def _grow(self) -> None:
        self._looked = time.monotonic()
        while len(self._actors) < self._in_flight:
            slots = min(SLOTS, self._in_flight - len(self._actors))
            options = {"num_cpus": 0, "max_concurrency": slots}
            handle = self._ray.remote(RemoteWorker).options(**options).remote(self._bench)
            self._actors += [_Actor(handle, call=handle.start.remote()) for _ in range(slots)]


def worker_rates(
    seconds: Seconds = 0.8, in_flight: InFlight = "4,16,64,256", tune: UpTo = 16, rounds: Rounds = 6
) -> None:
    """Prints the rate of each number of plans in flight, and the most that the sleep allows."""
    table = Table("in flight", "most, evaluations/s", "ours", "Ray Tune", box=SIMPLE)
    with console.status("") as status:
        for count in map(int, between_commas(in_flight)):
            status.update(f"{count} in flight")
            problem = sleepy_problem(seconds)
            ours = evaluations_per_second(problem, SleepingCluster(problem, count), rounds * count, count)
            status.update(f"{count} in flight, Ray Tune")
            theirs = tune_rate(seconds, count, rounds * count) if count <= tune else None
            told = f"{theirs:.1f}" if theirs is not None else "not measured"
            table.add_row(str(count), f"{count / seconds:.1f}", f"{ours:.1f}", told)
    results.print(table)


def tune_rate(seconds: float, in_flight: int, trials: int) -> float | None:
    """Ray Tune's trials a second with its random search and one CPU a trial; None if Ray Tune is not installed."""
    import ray

    try:
        from ray import tune
    except ImportError as error:
        notice(f"Ray Tune is not installed ({error}). Run: pip install 'ray[tune]'")
        return None
    times: list[float] = []

    class Clock(tune.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    def sleep(given: dict[str, float]) -> None:
        time.sleep(seconds)
        tune.report({"loss": given["width"]})

    ray.init(address="local", num_cpus=in_flight, log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(sleep, {"cpu": 1}),
            param_space={"width": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=in_flight),
            run_config=tune.RunConfig(storage_path=folder, callbacks=[Clock()], verbose=0),
        ).fit()
    ray.shutdown()
    return rate_of(times)


if __name__ == "__main__":
    run_command(worker_rates)
