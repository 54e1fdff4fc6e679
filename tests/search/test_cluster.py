"""A Ray cluster gives the trials of one process, whatever dies or hangs."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_pools import config_of, problem_with, searched

from prune_env.common.errors import ConfigError, RunError
from prune_env.env.trial import Trial
from prune_env.search.pools import cluster
from prune_env.search.pools.here import Here

pytestmark = pytest.mark.slow
SEARCH = "cma_from_rules"


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of two simulated nodes of one processor each."""
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'prune-env[ray]'")
    for name, value in {**cluster.SIGNS_OF_LIFE, "RAY_USAGE_STATS_ENABLED": "0"}.items():
        os.environ[name] = value
    # The workers import the test's own network from where this process found it.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.second = found.add_node(num_cpus=1)
    yield found
    found.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_two_nodes_give_the_same_trials_while_an_actor_dies_and_another_hangs_and_a_node_goes(
    nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LEAST_LATE", 1.0)
    problem = problem_with()
    expected = searched(problem, config_of(SEARCH), Here(problem))
    problem = problem_with()
    pool = cluster.Cluster(problem, nodes.address, None)
    stopped: list[int] = []

    def disturb(trial: Trial) -> None:
        running = [actor for actor in pool._actors if "process" in actor.name]
        if trial.number == 6:
            os.kill(process_of(running[0].name), signal.SIGKILL)
        if trial.number == 14:
            stopped.append(process_of(running[0].name))
            os.kill(stopped[0], signal.SIGSTOP)
            nodes.add_node(num_cpus=1)
        if trial.number == 22:
            nodes.remove_node(nodes.second, allow_graceful=False)

    try:
        assert searched(problem, config_of(SEARCH), pool, disturb) == expected
    finally:
        for process in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    assert pool._asked_again >= 1


def process_of(name: str) -> int:
    return int(name.rsplit(" ", 1)[1])


def test_an_actor_whose_digits_are_others_is_refused_by_name(nodes: Any) -> None:
    from test_pools import Skewed

    problem = problem_with(Skewed)
    started = time.monotonic()
    with pytest.raises(RunError, match=r"^The worker \w+ on node \w+, process \d+ measures the uniform plan otherwise"):
        searched(problem, config_of(SEARCH), cluster.Cluster(problem, nodes.address, 1))
    assert time.monotonic() - started < 120


def test_a_cluster_that_is_not_there_is_refused_with_what_to_do() -> None:
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'prune-env[ray]'")
    with pytest.raises(ConfigError, match=r"^run\.address: there is no Ray cluster at 'auto' .*`ray start --head`"):
        cluster.connected("auto")


def test_without_ray_the_error_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed\. Run: pip install 'prune-env\[ray\]'"):
        cluster.connected("auto")
