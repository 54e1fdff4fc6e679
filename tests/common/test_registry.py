"""All registries behave alike: names are unique, unknown names get the nearest name, modules name own values."""

from pathlib import Path
from typing import Any

import pytest

from prune_env.common.errors import ConfigError, UserError, suggest
from prune_env.common.registry import Registry
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.task import TASKS
from prune_env.criteria import CRITERIA
from prune_env.data.registry import SOURCES
from prune_env.models import DETECTORS
from prune_env.models.registry import MODELS
from prune_env.recover.penalties import PENALTIES
from prune_env.repair import REPAIRS
from prune_env.rewards import RewardError, make_reward
from prune_env.rewards.errors import suggest as suggest_reward
from prune_env.search.registry import SEARCHES

EVERY: list[Registry[Any]] = [CRITERIA, DETECTORS, GRANULARITIES, MODELS, PENALTIES, REPAIRS, SEARCHES, SOURCES, TASKS]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's own."""
    (tmp_path / "own_values_of_a_test.py").write_text("number = 3\nclass Inner:\n    value = print\n")
    (tmp_path / "own_failure_of_a_test.py").write_text("raise OSError('no such driver')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_values_of_a_test"


@pytest.mark.parametrize("registry", EVERY, ids=lambda registry: registry.kind)
class TestEvery:
    def test_name_has_a_line_that_says_what_it_is(self, registry: Registry[Any]) -> None:
        assert tuple(registry.summaries()) == registry.names()
        assert all(len(line) > 10 for line in registry.summaries().values())

    def test_name_is_offered_where_only_its_case_differs(self, registry: Registry[Any]) -> None:
        for name in registry:
            with pytest.raises(UserError, match=rf"^{registry.setting}: there is no .*; did you mean '{name}'\?"):
                registry.find(name.upper())

    def test_name_can_be_taken_once(self, registry: Registry[Any]) -> None:
        taken = registry.names()[0]
        with pytest.raises(ValueError, match=f"named '{taken}' is registered already"):
            registry.add(taken, None)

    def test_name_like_no_other_is_refused_with_the_way_to_name_ones_own(self, registry: Registry[Any]) -> None:
        with pytest.raises(registry.error, match=r"there is no .*'qqqqqq'; known: .*; or package\.module:callable for"):
            registry.find("qqqqqq")

    def test_setting_that_gave_a_name_is_what_the_message_says(self, registry: Registry[Any]) -> None:
        with pytest.raises(registry.error, match=r"^--option: there is no"):
            registry.find("qqqqqq", "--option")
        with pytest.raises(registry.error, match=r"^--option: .*cannot be imported"):
            registry.find("no_such_module_anywhere:value", "--option")

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("no_such_module_anywhere:value", r"cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
            ("own_failure_of_a_test:value", r"cannot be imported \(OSError: no such driver\)"),
            ("own_values_of_a_test:other", "'other' does not exist in module 'own_values_of_a_test'"),
            ("own_values_of_a_test:Inner.other", "'Inner.other' does not exist in module"),
            ("own_values_of_a_test:number", "'number' is of type int and is not callable"),
            ("own_values_of_a_test:", r"write it as package\.module:callable"),
            (":value", r"write it as package\.module:callable"),
        ],
    )
    @pytest.mark.usefixtures("own")
    def test_own_value_that_is_not_there_is_refused(self, registry: Registry[Any], given: str, words: str) -> None:
        with pytest.raises(registry.error, match=rf"^{registry.setting}: {registry.kind} '{given}': .*{words}"):
            registry.find(given)


def test_a_value_within_a_class_of_a_module_is_found(own: str) -> None:
    assert Registry[Any]("value", "value.name").find(f"{own}:Inner.value") is print


def test_what_is_imported_is_made_a_value_and_what_is_known_is_not(own: str) -> None:
    registry = Registry[Any]("value", "value.name", adopt=lambda name, found: (name, found))
    registry.add("known", 3)
    assert registry.find("known") == 3
    assert registry.find(f"{own}:Inner.value") == (f"{own}:Inner.value", print)


def test_names_are_those_that_match_a_pattern_whatever_its_case() -> None:
    registry = Registry[int]("value", "value.name")
    for number, name in enumerate(["resnet20", "VGG", "resnet56"]):
        registry.add(name, number)
    assert registry.names() == tuple(registry) == ("resnet20", "VGG", "resnet56")
    assert registry.names("ResNet*") == ("resnet20", "resnet56")
    assert registry.names("*g*") == ("VGG",)
    assert registry.names("vg") == ()
    assert registry.values() == (0, 1, 2)


def test_what_is_registered_for_a_while_is_forgotten_also_after_an_error() -> None:
    registry = Registry[int]("value", "value.name")
    registry.add("stays", 1)

    def fail_after_adding() -> None:
        with registry.restored():
            registry.add("goes", 2)
            raise ConfigError("after that")

    with pytest.raises(ConfigError, match="after that"):
        fail_after_adding()
    assert registry.names() == ("stays",)


@pytest.mark.parametrize("words", [suggest, suggest_reward])
def test_suggestions_do_not_go_by_case(words: Any) -> None:
    assert words("DDPG", ["ddpg", "random"]).startswith("did you mean 'ddpg'?")
    assert words("resnet50", ["ResNet50", "resnext"]).startswith("did you mean 'ResNet50'?")
    assert words("qqq", ["ddpg"]) == "known: ddpg"
    assert words("qqq", []) == "known: none"


def test_a_reward_in_the_wrong_case_is_offered_in_the_right_one() -> None:
    with pytest.raises(
        RewardError, match=r"^reward\.name: there is no reward 'ERROR_.*; did you mean 'error_log_macs'\?"
    ):
        make_reward("ERROR_LOG_MACS")


@pytest.mark.parametrize(
    ("registry", "given", "lacks"),
    [
        (TASKS, "json:loads", "it has no name, load, build_model, forward, loss, metrics"),
        (TASKS, "builtins:print", "it has no name"),
        (GRANULARITIES, "json:loads", "it has no Settings, prepare, builder"),
    ],
)
def test_what_is_no_such_class_is_refused_in_words(registry: Registry[Any], given: str, lacks: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{registry.setting}: '{given}' must be a class like prune_env.*{lacks}"):
        registry.find(given)
