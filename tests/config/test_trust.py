"""Trust: what a run's settings name is imported only if the user gave the same name, or trusts the run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from prune_env import RunConfig
from prune_env.common.errors import ConfigError
from prune_env.common.registry import import_named
from prune_env.config import describe
from prune_env.config.trust import EVERYTHING, NOTHING, Trust, code_keys
from prune_env.rewards import make_reward
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of

KEYS = sorted(code_keys(RunConfig))


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A module ``hostile`` that can be imported; tells whether it was."""
    mark = tmp_path / "mark"
    (tmp_path / "hostile.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom builtins import dict as build\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    return mark.is_file


def run_with(root: Path, **sections: dict[str, object]) -> RunDirectory:
    """A run of somebody else, as far as the commands look before they load anything."""
    document = {"model": {"name": "digits_resnet"}, "data": {"name": "digits"}, **sections}
    root.mkdir(parents=True)
    for name in ("plan.json", "summary.json"):
        (root / name).write_text("{}")
    (root / "config.yaml").write_text(yaml.safe_dump(document))
    return RunDirectory.open(root)


def test_every_setting_that_takes_the_user_s_own_code_is_marked() -> None:
    taking = {key.key for key in describe() if "package.module" in key.description}
    assert taking | {"run.address", "run.log"} == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_code_that_a_run_names_is_refused_by_key_and_value_and_never_imported(
    key: str, tmp_path: Path, imported: Callable[[], bool]
) -> None:
    section, _, name = key.partition(".")
    run = run_with(tmp_path / "run", **{section: {name: "hostile:build"}})
    with pytest.raises(
        ConfigError, match=rf"not trusted:\n  {key}: 'hostile:build' .*\n.*--trust.*{key}=hostile:build"
    ):
        settings_of(run)
    assert not imported()


def test_a_log_outside_the_run_is_refused_until_it_is_given(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", run={"log": ["csv", "optuna://elsewhere.db"]})
    with pytest.raises(ConfigError, match=r"run\.log: .*optuna://elsewhere\.db.* sends the log out of the run"):
        run.settings()
    given = ['run.log=["csv", "optuna://elsewhere.db"]']
    assert run.settings(given).run.log == run.settings(trust=EVERYTHING).run.log == ("csv", "optuna://elsewhere.db")


@pytest.mark.parametrize("text", ["${NAME:-hostile:build}", "${HOSTILE}"])
def test_code_that_a_variable_names_is_refused(
    text: str, tmp_path: Path, imported: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", "hostile:build")
    with pytest.raises(ConfigError, match=r"granularity\.name: '\$\{.*' reads environment variables"):
        run_with(tmp_path / "run", env={"granularity": text}).settings()
    assert not imported()


def test_the_library_s_own_names_need_no_trust(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", run={"address": "local"}, granularity={"name": "stripe"})
    assert settings_of(run).granularity.name == "stripe"


def test_code_is_imported_where_the_run_is_trusted_or_the_same_name_is_given(
    tmp_path: Path, imported: Callable[[], bool]
) -> None:
    run = run_with(tmp_path / "run", model={"name": "hostile:build"}, reward={"name": "hostile:build"})
    given = ["model.name=hostile:build"]
    assert run.settings(given).model.name == run.settings(trust=EVERYTHING).model.name == "hostile:build"
    assert run.settings(trust=Trust.of(run.settings(given))).reward.name == "hostile:build"
    with pytest.raises(ConfigError, match=r"reward\.name: 'hostile:build'"):
        run.settings(["model.name=digits_resnet"])
    (run.root / "config.yaml").write_text(
        "model: {name: digits_resnet}\ndata: {name: digits}\ntask: {name: hostile:build}"
    )
    with pytest.raises(ConfigError, match=r"must be a class like prune_env\.tasks\.Task"):
        run.settings(trust=EVERYTHING)
    assert imported()


def test_the_weights_that_a_run_trained_ask_for_no_more_trust(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", model={"name": "hostile:build"})
    run.dense_weights.touch()
    assert settings_of(run, ["model.name=my_net:build"]).model.weights == str(run.dense_weights)
    with pytest.raises(ConfigError, match=r"model\.name: 'hostile:build'"):
        settings_of(run)


def test_settings_that_are_no_settings_are_told_as_such(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", model={"name": ["hostile:build"]}, granularity={"name": 3})
    with pytest.raises(ConfigError, match="must be text"):
        run.settings()


def test_a_section_of_any_model_is_searched() -> None:
    class Root(BaseModel):
        seed: int = 0

    assert code_keys(Root) == {}
    NOTHING.check(Root, {"seed": "a:b"}, "settings")


@pytest.mark.parametrize("own", ["import_named", "make_reward"])
def test_the_user_s_own_module_is_found_in_the_working_directory_after_all_other_places(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_cuts_for_test.py").write_text("def build(outcome, baseline):\n    return 1.5\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_cuts_for_test", raising=False)
    call = make_reward if own == "make_reward" else lambda name: import_named(name, "a test")
    assert call("my_cuts_for_test:build") is not None
    assert sys.path[-1] == str(tmp_path)


def test_a_working_directory_that_was_deleted_hides_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert import_named("json:dumps", "a test") is not None
    assert make_reward("math:dist") is not None


@pytest.mark.slow
def test_no_process_takes_a_module_of_the_working_directory_for_a_package(tmp_path: Path) -> None:
    """Also none that Python itself starts for the workers."""
    for name in ("sklearn", "pickle", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the working directory')\n")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "import sys\n"
        "from prune_env.commands.cli import main\n"
        "from prune_env.search.pools.whole import spread\n"
        "if __name__ == '__main__':\n"
        "    assert sorted(spread(len, {'a': ('worker',), 'b': ('two',)}, 2)) == [('a', 6), ('b', 3)]\n"
        "    sys.argv = ['prune-env', 'list', 'criteria']\n"
        "    main()\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "taylor" in done.stdout


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"name": "digits", "path": "${SECRET}"}}, r"data\.path: '\$\{SECRET\}' reads environment variables"),
        (
            {"model": {"name": "timm/resnet18", "arguments": {"pretrained_cfg": {"url": "http://host/a.pth"}}}},
            r"model\.arguments\.pretrained_cfg\.url: 'http://host/a\.pth' is an address on a network",
        ),
    ],
    ids=["variable", "address"],
)
def test_a_run_reads_no_variable_and_names_no_address(
    sections: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    run = run_with(tmp_path / "run", **sections)
    with pytest.raises(ConfigError, match=words) as refusal:
        settings_of(run)
    assert "hunter2" not in str(refusal.value)
    assert settings_of(run, trust=EVERYTHING).data.name == "digits"


def test_an_escaped_reference_and_a_setting_that_the_user_gives_are_no_matter_of_trust(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", data={"name": "digits", "path": "$${SECRET}"})
    assert settings_of(run).data.path == "${SECRET}"
    run = run_with(tmp_path / "other", data={"name": "digits", "path": "${SECRET}"})
    assert settings_of(run, ["data.path=mine"]).data.path == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "model: {name: !!binary aG9zdGlsZTpidWlsZA==}",
        "model: {name: digits_resnet}\nrun: {address: !!binary MTAuMC4wLjE6NjM3OQ==}",
        "model: {name: digits_resnet}\nrun: {log: !!set {'optuna:///elsewhere.db': null}}",
        "model: {name: digits_resnet}\nrun: {log: !!omap [{'optuna:///elsewhere.db': 1}]}",
    ],
    ids=["code", "a cluster", "a set of logs", "an ordered map of logs"],
)
def test_no_kind_of_yaml_hides_what_a_run_names(text: str, tmp_path: Path, imported: Callable[[], bool]) -> None:
    run = run_with(tmp_path / "run")
    run.config.write_text(f"{text}\ndata: {{name: digits}}\n")
    for trust in (NOTHING, EVERYTHING):
        with pytest.raises(ConfigError, match=r"a value of the kind '(binary|set|omap)' is no setting"):
            run.settings(trust=trust)
    assert not imported()


@pytest.mark.parametrize("hidden", [{"model": {"name": b"hostile:build"}}, {"run": {"log": {"optuna://elsewhere.db"}}}])
def test_what_the_settings_have_become_is_checked_too(hidden: dict[str, Any], imported: Callable[[], bool]) -> None:
    document = {"model": {"name": "digits_resnet"}, "data": {"name": "digits"}, **hidden}
    with pytest.raises(ConfigError, match="not trusted"):
        RunConfig.from_mapping(document, trust=NOTHING)
    assert not imported()
