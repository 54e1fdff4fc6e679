"""The library's own values keep the promises that users' values must keep; so do the examples of docs/extending.md."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import boxed_batch, small_centre
from toy import CLASSES, COLOURS, SIDE, ToyResNet, policy_for

from prune_env.config.granularity import GRANULARITIES
from prune_env.config.task import TASKS
from prune_env.criteria import CRITERIA
from prune_env.data import Batch
from prune_env.rewards import reward_names
from prune_env.search import SEARCHES
from prune_env.testing import check_criterion, check_granularity, check_reward, check_search, check_task

SETTINGS: dict[str, list[dict[str, float]]] = {
    "accuracy_guaranteed": [{}, {"floor": 0.8}, {"drop": 0.05}],
    "budget_penalty": [{"keep": 0.5}, {"keep": 0.25, "weight": 3.0}],
    "latency_penalty": [{"keep": 0.5}, {"keep": 0.25, "weight": 3.0}],
}
SLOW = ("clusters", "ddpg", "td3", "sac", "ppo", "cma", "cma_from_rules", "tpe")
"""Criteria and searches that learn, which takes seconds: an encoder for each unit, or several searches."""

EXAMPLES = {
    "classification": (ToyResNet(4), Batch(torch.randn(5, COLOURS, SIDE, SIDE), torch.arange(5) % CLASSES)),
    "detection": (small_centre(), boxed_batch(3)),
}
"""A network and a batch for each task."""

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"


def marked(names: Any) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(CRITERIA))
def test_every_criterion_keeps_its_promises(name: str) -> None:
    check_criterion(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(SEARCHES.names()))
def test_every_search_keeps_its_promises(name: str) -> None:
    check_search(name, policy_for(name))


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name in reward_names() for settings in SETTINGS.get(name, [{}])]
)
def test_every_reward_keeps_its_promises(name: str, settings: dict[str, float]) -> None:
    check_reward(name, settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"max_groups": 4, "kernels": "norm"}], ids=["default", "other settings"])
@pytest.mark.parametrize("name", [*GRANULARITIES, "own_granularity:Middle"])
def test_every_granularity_keeps_its_promises(name: str, settings: dict[str, Any]) -> None:
    known = GRANULARITIES.find(name).Settings.model_fields
    check_granularity(name, {key: value for key, value in settings.items() if key in known})


@pytest.mark.parametrize("name", [*TASKS])
def test_every_task_keeps_its_promises(name: str) -> None:
    check_task(name, *EXAMPLES[name])


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules that the guide shows, as a user would write them."""
    modules = dict(re.findall(r"`(\w+)\.py`:\n\n```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL))
    for name, text in modules.items():
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("examples")
def test_the_examples_of_the_guide_keep_their_promises() -> None:
    check_criterion("my_criterion:sharpest")
    check_search("my_search:Halves")
    check_reward("my_reward:cautious")
