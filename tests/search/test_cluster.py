"""A Ray cluster gives the trials of one process, whatever dies or hangs. The tests share one cluster."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_pools import Skewed, config_of, problem_with, searched
from test_whole import Broken, failing, squared

from prune_env.common.errors import ConfigError, RunError
from prune_env.env.trial import Trial
from prune_env.search.pools import cluster
from prune_env.search.pools.connection import check_address
from prune_env.search.pools.here import Here
from prune_env.search.pools.whole import spread

SEARCH = "cma_from_rules"


class TestConnection:
    @pytest.mark.parametrize(
        ("address", "known", "reason"),
        [
            ("auto", "", "Could not find any running Ray instance"),
            ("auto", "127.0.0.1:1", "refused"),
            ("127.0.0.1:1", "", "refused"),
        ],
    )
    def test_to_a_cluster_that_is_not_there_is_refused_with_what_to_do(
        self, address: str, known: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("ray", reason="needs the extra ray: pip install 'prune-env[ray]'")
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.setenv("RAY_ADDRESS", known)
        words = rf"^run\.address: there is no Ray cluster at '{address}' \(.*{reason}.*`ray start --head`"
        with pytest.raises(ConfigError, match=words):
            check_address(address)

    @pytest.mark.parametrize("address", ["auto", "local"])
    def test_without_ray_is_refused_with_the_command(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ConfigError, match=r"Ray is not installed\. Run: pip install 'prune-env\[ray\]'"):
            check_address(address)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two simulated nodes of one processor each, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'prune-env[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # The workers import the tests' own classes from where this process found them.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        found.second = found.add_node(num_cpus=1)
        ray.init(address=found.address, log_to_driver=False)
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.mark.slow
def test_whole_searches_run_on_the_nodes_and_an_error_is_the_calls_own(nodes: Any) -> None:
    found = spread(squared, {one: (one,) for one in range(3)}, None, nodes.address)
    assert sorted(found) == [(0, 0), (1, 1), (2, 4)]
    with pytest.raises(RunError, match=r"^7$"):
        list(spread(failing, {"a": (7,)}, 1, nodes.address))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Skewed, r"^The worker \w+ on node \w+, process \d+ measures the uniform plan otherwise"),
        (Broken, r"^The worker \w+ on node \w+, process \d+ cannot start: RunError\('cannot be built here'\)"),
    ],
)
def test_an_actor_that_cannot_be_used_ends_the_search_with_the_reason(nodes: Any, kind: Any, words: str) -> None:
    problem = problem_with(kind)
    with pytest.raises(RunError, match=words):
        searched(problem, config_of(SEARCH), cluster.Cluster(problem, nodes.address, 1))


@pytest.mark.slow
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
