"""Names of earlier releases: files and command lines that use them give the same settings."""

from typing import Any

import pytest

from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig

LEAST: dict[str, Any] = {"model": {"name": "resnet20"}, "data": {"name": "cifar10"}}
GIVEN = {"layout": "contiguous", "dtype": "bfloat16", "folded": False, "batch": 32, "threads": 2}


def config(*overrides: str, **sections: Any) -> RunConfig:
    return RunConfig.from_mapping({**LEAST, **sections}, overrides)


def test_the_section_form_of_a_file_is_the_section_execution() -> None:
    assert config(form=GIVEN) == config(execution=GIVEN)
    assert config(form=GIVEN).execution.model_dump() == GIVEN
    assert config(form=None) == config()
    assert "form" not in config(form=GIVEN).resolved()


@pytest.mark.parametrize("key", GIVEN)
@pytest.mark.parametrize("section", ["form", "execution"])
def test_an_override_of_the_section_form_is_one_of_execution(section: str, key: str) -> None:
    (earlier, today) = (f"{name}.{key}={str(GIVEN[key]).lower()}" for name in ("form", "execution"))
    file = {section: {**GIVEN, key: None}}
    assert config(earlier, **file) == config(today, **file) == config(execution=GIVEN)


def test_the_later_override_wins_whichever_name_it_uses() -> None:
    assert config("form.batch=8", "execution.batch=16").execution.batch == 16
    assert config("execution.batch=16", "form.batch=8").execution.batch == 8


@pytest.mark.parametrize("given", ["{batch: 64, threads: 1}", "null"])
def test_a_whole_section_replaces_the_file_s(given: str) -> None:
    assert config(f"form={given}", execution=GIVEN) == config(f"execution={given}", execution=GIVEN)
    assert config(f"form={given}", execution=GIVEN).execution.layout is None


def test_a_file_with_both_names_has_the_keys_of_both_and_todays_win() -> None:
    found = config(form={"batch": 8, "threads": 2}, execution={"batch": 16}).execution
    assert (found.batch, found.threads) == (16, 2)


@pytest.mark.parametrize("name", ["form", "execution"])
def test_a_mistake_is_told_by_todays_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"execution\.batch: given 0"):
        config(**{name: {"batch": 0}})
    with pytest.raises(ConfigError, match=r"execution\.speed: unknown key"):
        config(f"{name}.speed=3")
    with pytest.raises(ConfigError, match=r"execution: given 3; must be a mapping"):
        config(**{name: 3})
