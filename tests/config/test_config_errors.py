"""RunConfig: messages about mistakes in config files and overrides."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig

LEAST: dict[str, Any] = {"model": {"name": "resnet20"}, "data": {"name": "cifar10"}}


def message(*overrides: str, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping({**LEAST, **sections}, overrides)
    return str(caught.value)


def file_message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.load(path, overrides)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(LEAST))
    return path


def test_a_variable_that_is_not_set_is_named_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    text = message("data.path=${NOT_SET}/x", "model.weights=${NOT_SET}")
    assert "data.path: environment variable NOT_SET is not set" in text
    assert "model.weights: environment variable NOT_SET" in text
    assert "write ${NOT_SET:-default}" in text


@pytest.mark.parametrize("text", ["${OPEN", "${1x}", "${A-b}"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    assert "data.path" in message(f"data.path='{text}'")
    assert "is malformed; write ${VAR}" in message(f"data.path='{text}'")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("budget.kep=0.3", "budget.kep: unknown key; did you mean 'keep'? (known: batch, keep, macs, metric, params)"),
        ("bugdet.keep=0.3", "bugdet: unknown key; did you mean 'budget'?"),
        (
            "budget.keep=1.5",
            "budget.keep: given 1.5; must be less than or equal to 1 (Share of the dense cost",
        ),
        ("budget.keep=0", "budget.keep: given 0; must be greater than 0"),
        ("budget={keep: 0.5, macs: 0.4}", "keep is 0.5 and macs is 0.4, but both are the share of the macs"),
        ("budget.keep=half", 'budget.keep: given "half"; must be a valid number'),
        ("budget.keep=.nan", "budget.keep: given NaN; must be a finite number"),
        (
            "data.image_size=[3, 0]",
            "data.image_size: given [3, 0]; must be null, a whole number of 1 or more, or two of",
        ),
        ("data.image_size=true", "data.image_size: given true; must be null, a whole number of 1 or more"),
        ("budget.keep=true", "budget.keep: given true; must not be true or false"),
        ("budget.metric=flops", "budget.metric: given \"flops\"; must be 'macs', 'params' or 'latency'"),
        ("budget=0.5", "budget: given 0.5; must be a mapping of keys"),
        ("granularity.name=grop", "granularity.name: there is no granularity 'grop'; did you mean 'group'?"),
        ("env.granularity=grop", "granularity.name: there is no granularity 'grop'; did you mean 'group'?"),
        ("granularity.name=3", "granularity.name: given 3; must be text"),
        ("granularity=channel", 'granularity: given "channel"; must be a mapping of keys'),
        ("granularity.max_groups=4", "granularity.max_groups: unknown key; known: action, name"),
        ("fidelity.batch_size=64", "fidelity.batch_size: unknown key; known: epochs, images, learning_rate, plans"),
        ("env.round_to=0", "env.round_to: given 0; must be greater than or equal to 1"),
        ("env.protect=conv1", 'env.protect: given "conv1"; must be residual_streams, or a mapping of module names'),
        ("env.protect=[conv1]", 'env.protect: given ["conv1"]; must be a mapping of keys'),
        ("env.protect.conv1=3", "env.protect.conv1: given 3; must be text; put quotes around it"),
        ("run.device=gpu", 'run.device: given "gpu"; must be auto, cpu, cuda or cuda:N'),
        ("run.directory=''", 'run.directory: given ""; must not be empty'),
        ("search.evaluations=1.5", "search.evaluations: given 1.5; must be a valid integer"),
        ("search.evaluations=0", "search.evaluations: given 0; must be greater than or equal to 1"),
        ("seed=-1", "seed: given -1; must be greater than or equal to 0"),
        ("agent.hidden=[64, 0]", "agent.hidden[1]: given 0; must be greater than 0"),
        ("agent.hidden=[]", "agent.hidden: given []; must not be empty"),
        ("agent.hidden=64", "agent.hidden: given 64; must be a list"),
        ("agent.preset=acm", "agent.preset: given \"acm\"; must be 'amc'"),
        ("model.name=5", "model.name: given 5; must be text; put quotes around it"),
        ("model.arguments.a=2024-01-01", 'model.arguments.a: given "2024-01-01"; must be text, a number'),
        ("model.name=", "model.name: given null; must be text"),
    ],
)
def test_a_wrong_value_is_told_with_key_given_and_allowed(override: str, words: str) -> None:
    text = message(override)
    assert words in text
    assert len(text.splitlines()) == 2
    assert "pydantic" not in text


def test_names_that_are_missing_are_told_by_their_full_key() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping({})
    assert "model.name: required, and not given (A network by name" in str(caught.value)
    assert "data.name: required" in str(caught.value)


def test_every_problem_is_told_at_once_and_the_misspelt_keys_first() -> None:
    text = message("budget.keep=3", "search.evaluations=no", "agent.tua=0.1")
    first, *rest = text.splitlines()
    assert first == "overrides (key.path=value):"
    assert [line.split(":")[0].strip() for line in rest] == ["agent.tua", "budget.keep", "search.evaluations"]


@pytest.mark.parametrize("value", ["agent.unknown{}=1", "agent.{}nois=1", "env.{}=[" + "x, " * 400 + "x]"])
def test_many_problems_still_fit_on_a_screen(value: str) -> None:
    text = message(*[value.format(number) for number in range(40)])
    assert sum(-(-len(line) // 80) for line in text.splitlines()) <= 24
    assert text.endswith("and 33 more")


def test_many_values_out_of_range_still_fit_on_a_screen() -> None:
    wrong = ["keep=3", "metric=no", "batch=0"], ["min_keep=0", "round_to=0", "trace_seconds=0", "approximate=3"]
    text = message(*(f"{name}.{one}" for name, given in zip(("budget", "env"), wrong, strict=True) for one in given))
    assert len(text.splitlines()) == 8
    assert sum(-(-len(line) // 80) for line in text.splitlines()) <= 24


def test_a_long_value_is_cut_short() -> None:
    assert max(len(line) for line in message(f"seed={'x' * 5000}").splitlines()) < 250


@pytest.mark.parametrize("override", ["seed", "=3", "budget.=3", ".keep=3"])
def test_an_override_without_key_or_equals_sign_is_refused(override: str) -> None:
    assert f"override {override!r}: write key.path=value, for example" in message(override)


def test_an_override_that_is_not_yaml_is_refused() -> None:
    assert message("agent.hidden=[1,").startswith("override 'agent.hidden=[1,' is not YAML: ")


def test_a_missing_file_is_told_with_the_files_beside_it(file: Path) -> None:
    text = file_message(file.with_name("jop.yaml"))
    assert "does not exist; did you mean 'job.yaml'?" in text
    assert "does not exist" in file_message(file.parent / "nowhere" / "job.yaml")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in file_message(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; it must be a mapping of keys"),
        (b"- a\n- b\n", "is a list; it must be a mapping of keys"),
        (b"seed: [1,\n", "is not YAML: expected the node content"),
        (b"a: 1\n  b: 2\n", "(line 2, column 4)"),
        (b"seed: 2024-13-45\n", "is not YAML: month must be in 1..12"),
        (b"seed: \x00\n", "is not YAML"),
        (
            b"seed: !!python/object/apply:os.getcwd []\n",
            "is not YAML: a value of the kind 'python/object/apply:os.getcwd' is no setting",
        ),
        (b"\xff\xfe\xfa", "cannot be read: not UTF-8 text"),
        (b"1: 2\nmodel: {name: a}\ndata: {name: b}\n", "1: unknown key"),
        (b"[" * 100_000, "is not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    text = file_message(path)
    assert text.startswith(f"config file {str(path)!r}")
    assert words in text


def test_a_problem_is_told_with_what_gave_it(file: Path) -> None:
    """The file, or an override; also where an override uses a key's old name, or gives a whole section."""
    where = f"config file {str(file)!r}"
    for override in ("budget.keep=3", "env.granularity=grop", "form.batch=0", "budget=3", "budgt.keep=1"):
        assert file_message(file, override).startswith("overrides (key.path=value):\n  ")
        assert where not in file_message(file, override)
    file.write_text(yaml.safe_dump({**LEAST, "budget": {"keep": 3, "metric": "flops"}, "env": {"granularity": "grop"}}))
    assert file_message(file, "seed=-1").startswith(f"{where}:\n  granularity.name: there is no")
    both = file_message(file, "seed=-1", "env.granularity=group", "budget.keep=4")
    ours, theirs = both.split(f"{where}:\n")
    assert [line.split(":")[0].strip() for line in ours.splitlines()[1:]] == ["seed", "budget.keep"]
    assert [line.split(":")[0].strip() for line in theirs.splitlines()] == ["budget.metric"]


class TestALimit:
    """What a small file may cost: each was minutes or gigabytes."""

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                b"a: &a [x,x,x,x,x,x,x,x,x]\n"
                + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)),
                "it holds more than 5,000 values",
            ),
            (b"seed: &a [*a]\n", "an alias stands for the value that it stands in (line 1"),
            (b"seed: &a {b: {c: *a}}\n", "an alias stands for the value that it stands in (line 1"),
            (b"seed: 1\nmodel: {name: a}\nseed: 2\n", "the key 'seed' is given twice (line 3, column 1)"),
            (b"data: {name: a, name: b}\n", "the key 'name' is given twice (line 1"),
            (b"seed: " + b"[" * 50 + b"]" * 50, "it is nested more than 20 levels deep"),
            (b"seed: {" * 5_000, "it is nested more than 20 levels deep"),
            (b"- " * 30_000, "it is nested more than 20 levels deep"),
            (b"seed: [" + b"1," * 30_000 + b"]", "it holds more than 5,000 values"),
            (b"#" * 2_000_000, "it is larger than 200,000 bytes"),
        ],
    )
    def test_is_told_at_once(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "job.yaml"
        path.write_bytes(content)
        begun = time.process_time()
        assert words in file_message(path)
        assert time.process_time() - begun < 2

    @pytest.mark.parametrize("text", ["${A:-", "${", "${A}", "$${A:-${A:-"])
    def test_of_references_is_told_at_once(self, text: str) -> None:
        begun = time.process_time()
        said = message(f"data.path='{text * 20_000}'")
        assert "holds more than 100 references to variables" in said
        assert sum(-(-len(line) // 80) for line in said.splitlines()) <= 24
        assert time.process_time() - begun < 2

    def test_does_not_keep_aliases_from_ordinary_files(self, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(
            "model: &m {name: cifar_resnet20, arguments: &a {x: [1, 2]}}\ndata: {name: cifar10}\n"
            "env: {protect: {<<: {conv1: why}, conv1: because}}\n"
        )
        assert RunConfig.load(path).env.protect == {"conv1": "because"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0x" + "f" * 5000, "a number has more than 40 characters"),
        ("1" * 5000, "a number has more than 40 characters"),
        ("1:" * 50_000 + "1", "a number has more than 40 characters"),
        ("1:30", "1:30 is a number to the base of 60 in YAML; put a text into quotes"),
        ("9223372036854775808", "is beyond 9,223,372,036,854,775,807"),
    ],
    ids=["hexadecimal", "decimal", "a long base of 60", "a base of 60", "beyond 64 bits"],
)
def test_numbers_that_no_setting_holds_are_refused_where_they_stand(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(f"seed: {text}\n")
    with pytest.raises(ConfigError, match=told):
        RunConfig.load(file)
    with pytest.raises(ConfigError, match=told):
        RunConfig.load("digits", [f"seed={text}"])


@pytest.mark.parametrize(
    "override",
    ["execution.threads=99999999999", "finetune.threads=99999999999", "agent.hidden=[1000000000000]"],
)
def test_sizes_that_no_machine_has_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(override.partition("=")[0])):
        RunConfig.load("digits", [override])
