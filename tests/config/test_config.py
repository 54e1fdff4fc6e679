"""RunConfig: what a config file means."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_env.config import RunConfig, describe
from prune_env.config.agent import AMC_PRESET, AgentSection
from prune_env.config.older import GONE, MOVED
from prune_env.criteria import criterion_named

LEAST: dict[str, Any] = {"model": {"name": "resnet20"}, "data": {"name": "cifar10"}}


def config(*overrides: str, **sections: Any) -> RunConfig:
    return RunConfig.from_mapping({**LEAST, **sections}, overrides)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**LEAST, "budget": {"keep": 0.4}}))
    return path


def test_a_file_with_only_names_gets_every_default(file: Path) -> None:
    read = RunConfig.load(file)
    assert (read.model.name, read.data.name, read.budget.keep) == ("resnet20", "cifar10", 0.4)
    assert (read.seed, read.search.evaluations, read.data.reward_images) == (0, 200, 1000)
    assert (read.reward.name, read.criterion.name, read.agent.name) == ("error", "consumer_error", "ddpg")
    assert read.agent.hidden == (64, 64)


@pytest.mark.parametrize(
    ("given", "main", "also"),
    [
        ({"macs": 0.4, "params": 0.3}, ("macs", 0.4), {"params": 0.3}),
        ({"params": 0.3}, ("params", 0.3), {}),
        ({"keep": 0.4, "params": 0.3}, ("macs", 0.4), {"params": 0.3}),
        ({"metric": "params", "macs": 0.4, "params": 0.3}, ("params", 0.3), {"macs": 0.4}),
        ({"metric": "latency", "keep": 0.6, "params": 0.3}, ("latency", 0.6), {"params": 0.3}),
    ],
)
def test_two_budgets_are_a_main_one_and_one_to_be_met_besides(
    given: dict[str, Any], main: tuple[str, float], also: dict[str, float]
) -> None:
    config = RunConfig.from_mapping({**LEAST, "budget": given})
    for one in (config, RunConfig.from_mapping(config.resolved())):
        assert ((one.budget.metric, one.budget.keep), one.budget.also) == (main, also)


def test_the_later_override_wins_over_the_earlier_and_over_the_file(file: Path) -> None:
    assert RunConfig.load(file, ["budget.keep=0.3", "budget.keep=0.2"]).budget.keep == 0.2


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("execution.threads=2", "execution", "threads", 2),
        ("execution.folded=false", "execution", "folded", False),
        ("model.weights=", "model", "weights", None),
        ("agent.tau=1e-3", "agent", "tau", 0.001),
        ("agent.hidden=[64, 32]", "agent", "hidden", (64, 32)),
        ("sensitivity.enabled=false", "sensitivity", "enabled", False),
        ("reward.settings={drop: 0.02}", "reward", "settings", {"drop": 0.02}),
        ("reward.settings.drop=0.02", "reward", "settings", {"drop": 0.02}),
        ("env.protect.layer1.0.conv1=why = because", "env", "protect", {"layer1.0.conv1": "why = because"}),
        ("model.arguments.width=8", "model", "arguments", {"width": 8}),
        ("run.device=cuda:1", "run", "device", "cuda:1"),
    ],
)
def test_an_override_is_read_as_yaml(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(config(override), section), key) == value


def test_overrides_leave_the_given_mapping_as_it_is() -> None:
    document = {**LEAST, "budget": {"keep": 0.4}}
    RunConfig.from_mapping(document, ["budget.keep=0.2", "model.name=other"])
    assert document["budget"] == {"keep": 0.4}
    assert LEAST["model"] == {"name": "resnet20"}


def test_a_section_without_keys_means_its_defaults() -> None:
    assert config(reward=None) == config()


def test_settings_do_not_change_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().budget.keep = 0.9


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**32 - 1),
            "budget.keep": st.floats(0, 1, exclude_min=True),
            "budget.metric": st.sampled_from(["macs", "params"]),
            "env.min_keep": st.floats(0, 1, exclude_min=True),
            "granularity.action": st.sampled_from(["share", "ratio"]),
            "env.protect": st.dictionaries(st.text(min_size=1), st.text()),
            "model.weights": st.none() | st.text(min_size=1),
            "model.arguments": st.dictionaries(
                st.text(), st.integers(1 - 2**63, 2**63 - 1) | st.text() | st.lists(st.booleans())
            ),
            "data.path": st.none() | st.sampled_from(["${HOME", "$${x}", "a ${B:-c} $$$${d}"]),
            "reward.settings": st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
            "agent.preset": st.none() | st.just("amc"),
            "agent.hidden": st.lists(st.integers(1, 65536), min_size=1, max_size=16),
            "agent.critic_learning_rate": st.floats(1e-12, 1e3),
            "sensitivity.top_share": st.none() | st.floats(0, 1),
        },
    )
)
def test_overrides_survive_the_way_through_the_dumped_yaml(values: dict[str, Any]) -> None:
    # The value contains "${" as text; "$${" prevents the look-up of a variable.
    overrides = [f"{key}={_as_override(value)}" for key, value in values.items()]
    read = config(*overrides)
    again = RunConfig.from_mapping(yaml.safe_load(read.dump_yaml()))
    assert again.resolved() == read.resolved()
    assert again.dump_yaml() == read.dump_yaml()
    for key, value in values.items():
        section, _, name = key.partition(".")
        assert (again.resolved()[section][name] if name else again.seed) == value


def _as_override(value: Any) -> str:
    text = yaml.safe_dump(_escaped(value), default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(part) for key, part in value.items()}
    return [_escaped(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${WEIGHTS}/a.safetensors", "/store/a.safetensors"),
        ("${WEIGHTS:-here}/a", "/store/a"),
        ("${NOT_SET:-here}/${WEIGHTS}", "here//store"),
        ("${EMPTY:-here}", "here"),
        ("$${WEIGHTS}", "${WEIGHTS}"),
        ("$WEIGHTS", "$WEIGHTS"),
    ],
)
def test_environment_variables_stand_in_text(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("WEIGHTS", "/store")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert config(model={"name": "resnet20", "weights": text}).model.weights == expected


def test_a_number_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALUATIONS", "12")
    assert config(search={"evaluations": "${EVALUATIONS:-3}"}).search.evaluations == 12


def test_an_override_makes_the_variable_unnecessary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    data = {"name": "cifar10", "path": "${NOT_SET}"}
    assert config("data.path=/images", data=data).data.path == "/images"


def test_a_preset_fills_only_what_the_user_did_not_give() -> None:
    agent = config("agent.preset=amc", "agent.tau=0.5").agent.with_preset()
    assert agent.tau == 0.5
    assert agent.warmup_episodes == AMC_PRESET["warmup_episodes"]
    assert agent.with_preset() == agent


def test_without_a_preset_the_agents_section_is_as_given() -> None:
    assert config("agent.tau=0.5").agent.with_preset() == config("agent.tau=0.5").agent


def test_every_value_of_a_preset_is_an_allowed_value() -> None:
    assert AgentSection.model_validate(dict(AMC_PRESET)).hidden == AMC_PRESET["hidden"]


def test_the_resolved_settings_hold_the_presets_values() -> None:
    assert config("agent.preset=amc").resolved()["agent"]["warmup_episodes"] == 100


def test_every_key_is_described_once_in_words() -> None:
    described = {entry.key: entry for entry in describe()}
    resolved = config().resolved()
    keys = {"seed"} | {f"{name}.{key}" for name, part in resolved.items() if name != "seed" for key in part}
    assert keys < described.keys()
    assert described.keys() - keys == {
        f"granularity.{key}"
        for key in ("max_groups", "only_faster", "kernels", "selectors", "selector_penalty", "sharing", "strength")
    }
    assert all(entry.description.endswith(".") for entry in described.values())
    assert described["model.name"].default == "required"
    assert described["budget.keep"][1:3] == ("number", "0.5")
    assert described["execution.threads"][1:3] == ("integer or null", "null")
    assert described["agent.hidden"][1:3] == ("list of integer", "[64, 64]")
    assert described["granularity.action"].type == "share or ratio or pruning_rate"


def test_a_file_with_keys_that_are_gone_is_read_without_them(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    older = {key.partition(".")[2]: None for key in GONE if key.startswith("fidelity.")}
    file.write_text(yaml.safe_dump({**document, "fidelity": {"epochs": 2, "plans": 5, **older}}))
    read = RunConfig.load(file)
    assert read.fidelity.model_dump() == {"epochs": 2, "learning_rate": 0.01, "images": 5000, "plans": 5}
    assert RunConfig.from_mapping(yaml.safe_load(read.dump_yaml())) == read


def test_the_short_fine_tuning_is_that_of_earlier_releases() -> None:
    training = config("fidelity.epochs=3", "fidelity.learning_rate=0.02").fidelity.training()
    assert training.model_dump() == {
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 0.02,
        "warmup": 0.1,
        "weight_decay": 5e-4,
        "label_smoothing": 0.0,
        "average": 0.0,
        "augment": "none",
        "layout": None,
        "dtype": None,
        "threads": None,
    }


def test_a_criterion_that_moved_to_the_benchmarks_is_found_there() -> None:
    for name in MOVED["criterion.name"]:
        assert criterion_named(config(f"criterion.name={name}").criterion.name).score.__name__ == name
    assert config("criterion.name=lobs").criterion.name == "lobs"


STREAMS = {"residual_streams": "residual stream"}


def test_what_is_protected_may_be_a_word_a_mapping_or_both() -> None:
    assert config("env.protect=residual_streams").env.protect == STREAMS
    assert config("env.protect={conv1: why}").env.protect == {"conv1": "why"}
    both = {"residual_streams": "mine", "conv1": "why"}
    assert config(env={"protect": both}).env.protect == both


def test_an_override_adds_to_the_word() -> None:
    added = config("env.protect.layer1.0.conv1=why", env={"protect": "residual_streams"})
    assert added.env.protect == {**STREAMS, "layer1.0.conv1": "why"}
    later = config("env.protect=residual_streams", "env.protect.conv1=why")
    assert later.env.protect == {**STREAMS, "conv1": "why"}
    assert config("env.protect={}", env={"protect": "residual_streams"}).env.protect == {}


@pytest.mark.parametrize("granularity", ["channel", "group", "stripe"])
def test_settings_are_the_same_in_another_process_and_know_what_was_given(granularity: str) -> None:
    config = RunConfig.from_mapping(
        {"model": {"name": "toy"}, "data": {"name": "noise"}},
        [f"granularity.name={granularity}", "agent.preset=amc", "agent.noise=0.2", "search.workers=auto", "seed=3"],
    )
    config = config.model_copy(update={"search": config.search.model_copy(update={"lag": 4})})
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.resolved() == config.resolved()
    assert type(again.granularity) is type(config.granularity)
