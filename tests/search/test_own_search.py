"""A search of the user's own, named by its module."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import toy_problem

from prune_env import RunConfig
from prune_env.common.errors import ConfigError
from prune_env.env.trial import Trial
from prune_env.search import Episode, Search, SearchCallback, SearchResult, train_agent
from prune_env.search.registry import check_named_search

OWN = """
from prune_env.search import Proposal, Search

class Halving(Search):
    def ask(self):
        self.widths = (self.widths + 1) // 2 if hasattr(self, "widths") else self.problem.budget.uniform()
        return Proposal(self.widths)

class Probing(Halving):
    needs_probes = probes = True

class Earlier(Search):
    def run(self, has_budget):
        pass

class NoSearch:
    pass
def function(problem, config):
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of the user's own."""
    (tmp_path / "own_search_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_search_of_a_test"
    sys.modules.pop("own_search_of_a_test", None)


def config_of(name: str, **sections: object) -> RunConfig:
    document = {"model": {"name": "toy"}, "data": {"name": "noise"}, "agent": {"name": name}}
    return RunConfig.from_mapping({**document, "search": {"evaluations": 3}, **sections})


def test_an_own_search_runs_as_the_library_s_searches_do(own: str) -> None:
    problem = toy_problem()
    trials: list[Trial] = []
    problem.listeners.append(trials.append)
    found = train_agent(problem, config_of(f"{own}:Halving"))
    assert [trial.proposed_by for trial in trials] == [f"{own}:Halving"] * 3
    assert found.best in trials
    assert trials[1].plan.widths["stem"] == (trials[0].plan.widths["stem"] + 1) // 2


def test_an_own_search_is_checked_as_the_library_s_searches_are(own: str) -> None:
    with pytest.raises(ConfigError, match=rf"probe_keep: null given, but the search '{own}:Probing' needs probes\."):
        check_named_search(config_of(f"{own}:Probing", sensitivity={"probe_keep": None}))


@pytest.mark.parametrize("name", ["NoSearch", "function"])
def test_an_own_search_that_is_no_class_of_searches_is_refused(own: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^agent\.name: search '{own}:{name}' must be a class .*Search"):
        check_named_search(config_of(f"{own}:{name}"))


def test_an_own_search_of_the_earlier_protocol_is_refused_with_what_to_write(own: str) -> None:
    with pytest.raises(ConfigError, match=rf"^agent\.name: search '{own}:Earlier' has run\(\) but no ask\(\)"):
        check_named_search(config_of(f"{own}:Earlier"))


class Stops(SearchCallback):
    """Stops at the second episode; notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_start(self, search: Search) -> None:
        self.heard.append(search.problem.baseline)

    def on_episode(self, episode: Episode) -> bool:
        self.heard.append(episode.number)
        return episode.number < 1

    def on_end(self, result: SearchResult) -> None:
        self.heard.append(result)


@pytest.mark.parametrize("lag", [1, 2])
def test_a_callback_hears_start_episodes_and_end_and_stops_the_search(own: str, lag: int) -> None:
    callback, numbers = Stops(), []
    problem, config = toy_problem(keep=0.9), config_of(f"{own}:Halving", search={"evaluations": 9, "lag": lag})
    result = train_agent(problem, config, (callback, lambda episode, _: numbers.append(episode.number)))
    assert callback.heard == [problem.baseline, 0, 1, result]
    # The others hear the last episode, too; what they return is no False.
    assert numbers == [0, 1]
    assert (result.episodes, problem.trials) == (2, 2)
