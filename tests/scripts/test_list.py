"""`prune-env list`: all names of a kind, the names that match a pattern, and refusals."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prune_env.commands.list_names import KINDS, list_names
from prune_env.common.errors import ConfigError
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.task import TASKS
from prune_env.criteria import CRITERIA, register_criterion
from prune_env.data.registry import SOURCES
from prune_env.models import DETECTORS, known_models
from prune_env.models.torchvision_detectors import torchvision_detectors
from prune_env.recover.penalties import PENALTIES
from prune_env.repair import REPAIRS
from prune_env.rewards import reward_names
from prune_env.search import SEARCHES

NAMES: dict[str, Callable[[], Any]] = {
    "models": known_models,
    "detectors": lambda: [*DETECTORS, *torchvision_detectors()],
    "data": SOURCES.names,
    "criteria": CRITERIA.names,
    "rewards": reward_names,
    "searches": SEARCHES.names,
    "granularities": GRANULARITIES.names,
    "tasks": TASKS.names,
    "repairs": REPAIRS.names,
    "penalties": PENALTIES.names,
}


@pytest.fixture(autouse=True)
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists are the same whether or not timm is installed."""
    monkeypatch.setitem(sys.modules, "timm", None)  # type: ignore[arg-type]


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines that a call prints."""

    def run(*given: Any, **settings: Any) -> list[str]:
        capsys.readouterr()
        list_names(*given, **settings)
        return capsys.readouterr().out.splitlines()

    return run


def test_every_kind_is_tested_here() -> None:
    assert set(KINDS) == set(NAMES)


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_has_one_line_that_says_what_it_is(kind: str, listed: Callable[..., list[str]]) -> None:
    rows = dict(line.split(maxsplit=1) for line in listed(kind))
    installed = {name for name in rows if not name.startswith("timm/")}
    assert installed == set(NAMES[kind]())
    assert all(len(line) > 10 and "`" not in line and "<http" not in line for line in rows.values())


def test_a_pattern_leaves_the_names_that_match_in_any_case(listed: Callable[..., list[str]]) -> None:
    assert [line.split()[0] for line in listed("models", "*RESNET5?")] == ["cifar_resnet56", "resnet50"]
    assert listed("criteria", "l1") == ["l1  L1 norms, summed over the members of a coupled unit."]


def test_json_holds_the_same(listed: Callable[..., list[str]]) -> None:
    found = json.loads("\n".join(listed("criteria", "l?", as_json=True)))
    assert found["kind"] == "criteria"
    assert [entry["name"] for entry in found["names"]] == ["l1", "l2"]
    assert found["names"][0]["summary"] == "L1 norms, summed over the members of a coupled unit."


def test_a_value_of_ones_own_is_listed_once_it_is_registered(listed: Callable[..., list[str]]) -> None:
    def mine(_: object) -> Any:
        """Mine [red] alone."""

    with CRITERIA.restored():
        register_criterion("mine")(mine)
        assert listed("criteria", "mi*") == ["mine  Mine [red] alone."]


def test_networks_of_timm_are_listed_where_it_is_installed(
    listed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny() -> None:
        """A `Tiny Net <https://tiny.net>`_ of
        two lines.

        More of it.
        """

    timm = types.SimpleNamespace(
        list_models=lambda: ["tiny_net"], models=types.SimpleNamespace(model_entrypoint={"tiny_net": tiny}.get)
    )
    monkeypatch.setitem(sys.modules, "timm", timm)  # type: ignore[arg-type]
    assert listed("models", "timm/*") == ["timm/tiny_net  A Tiny Net of two lines."]
    monkeypatch.setitem(sys.modules, "timm", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no models match 'timm/"):
        list_names("models", "timm/*")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("critera",), r"^KIND: there is no kind 'critera'; did you mean 'criteria'\? \(known: criteria, data, det"),
        (("Models",), r"^KIND: there is no kind 'Models'; did you mean 'models'\?"),
        (("criteria", "tailor"), r"^PATTERN: no criteria match 'tailor'; did you mean 'taylor'\?.* Write '\*tailor\*'"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(given: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        list_names(*given)


def test_the_command_ends_with_code_2_where_a_kind_is_not_known(refused: Callable[..., str]) -> None:
    assert "did you mean 'searches'?" in refused("list", "searchs")


def test_no_command_hides_a_module_of_the_standard_library() -> None:
    names = {file.stem for file in (Path(__file__).parents[2] / "scripts").glob("*.py")} - {"__init__"}
    assert len(names) > 10
    assert not names & sys.stdlib_module_names
