"""Records: what was written is read again; what was damaged or changed is refused by file, field and value."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, JsonValue
from safetensors import safe_open
from safetensors.torch import load_file, save

from prune_env.common.errors import RunError, WeightsError
from prune_env.common.records import (
    Record,
    append_record,
    checked,
    read_json,
    read_record,
    read_records,
    renamed,
    sealed,
    to_file,
)
from prune_env.common.tensor_records import read_tensor_file, to_tensor_file


class Inner(Record):
    counts: dict[int, float] = Field(default_factory=dict)


class Example(Record):
    remedy = "Measure it again."

    quality: float = Field(ge=0, le=1)
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    kind: Literal["a", "b"] = "a"
    inner: Inner | None = None

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        if document.get("version") == 9:
            raise ValueError("it is of version 9")
        return {"quality" if key == "accuracy" else key: value for key, value in document.items()}


class Anything(Record):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]


EXAMPLE = Example(quality=0.5, sizes=(1, 2), inner=Inner(counts={2: 0.25}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "example.json"


def test_what_was_written_is_read_again(path: Path) -> None:
    path.write_bytes(to_file(EXAMPLE))
    assert read_record(path, Example) == EXAMPLE
    assert set(json.loads(path.read_text())) == {"quality", "sizes", "kind", "inner", "digest"}


def test_a_file_of_an_earlier_release_has_no_digest_and_is_read_in_today_s_form(path: Path) -> None:
    path.write_text('{"accuracy": 0.5}')
    assert read_record(path, Example) == Example(quality=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": 5}, "quality: given 5; must be less than or equal to 1"),
        ({"quality": True}, "quality: given True; must be a valid number"),
        ({"quality": "0.5"}, "quality: given '0.5'; must be a valid number"),
        ({"quality": float("nan")}, "quality: given nan; must be a finite number"),
        ({"quality": None}, "quality: given None; must be a valid number"),
        ({"sizes": [1, 2.0]}, r"sizes\.1: given 2\.0; must be a valid integer"),
        ({"sizes": [1, 0]}, r"sizes\.1: given 0; must be greater than or equal to 1"),
        ({"sizes": 3}, "sizes: given 3; must be a valid array"),
        ({"kind": "c"}, "kind: given 'c'; must be 'a' or 'b'"),
        ({"inner": {"counts": {"x": 1}}}, r"inner\.counts\.x\.\[key\]: given 'x'; must be a valid integer"),
        ({"inner": {"counts": {"1": float("inf")}}}, r"inner\.counts\.1: given inf; must be a finite number"),
        ({"more": 1}, "more: given 1; unknown field"),
        ({"version": 9}, "it is of version 9"),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole", [True, False], ids=["digest", "no digest"])
def test_a_wrong_field_is_told_with_its_value_and_what_is_allowed(
    path: Path, change: dict[str, Any], message: str, whole: bool
) -> None:
    content = {**EXAMPLE.as_record(), **change}
    path.write_text(json.dumps(sealed(content) if whole else content))
    with pytest.raises(RunError, match=rf"^'{path}' is damaged: {message}.*\. Measure it again\.$"):
        read_record(path, Example)


def test_a_missing_field_is_told(path: Path) -> None:
    path.write_text("{}")
    with pytest.raises(RunError, match=r"is damaged: quality: Field required\. Measure it again"):
        read_record(path, Example)


@pytest.mark.parametrize("digest", ["0" * 32, "", None, 3, [1], {}])
def test_another_digest_is_told(path: Path, digest: Any) -> None:
    path.write_text(json.dumps({**EXAMPLE.as_record(), "digest": digest}))
    with pytest.raises(RunError, match=r"is damaged or was changed: digest is .*, but its contents have '\w{32}'"):
        read_record(path, Example)


@settings(max_examples=60, deadline=None)
@given(quality=st.floats(0, 1), sizes=st.lists(st.integers(1, 9), max_size=3))
def test_every_change_of_a_value_changes_the_digest(quality: float, sizes: list[int]) -> None:
    document = {**sealed(EXAMPLE.as_record()), "quality": quality, "sizes": sizes}
    if (quality, sizes) == (0.5, [1, 2]):
        assert checked(document, Example, "here") == EXAMPLE
    else:
        with pytest.raises(RunError, match="here is damaged or was changed"):
            checked(document, Example, "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "cannot be read: "),
        (b'{"a": ', "cannot be read: "),
        (b"\xff", "cannot be read: "),
        ('{"a": 1}'.encode("utf-16"), "cannot be read: "),
        (b"[" * 100_000, "cannot be read: "),
        (b"9" * 10_000, "cannot be read: "),
        (b"[]", "is damaged: it is not a JSON object"),
        (b"null", "is damaged: it is not a JSON object"),
        (b'{"quality": "\\ud800"}', "is damaged: "),
        (b'{"quality": ' + 900 * b"[" + 900 * b"]" + b"}", "is damaged: "),
        (b'{"quality": 1e999}', "is damaged: quality: given inf"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_record_is_told_by_its_file(path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RunError, match=rf"^'{path}' {message}") as caught:
        read_record(path, Example)
    assert len(str(caught.value)) < 800


def test_a_record_has_the_type_of_error_that_it_names(path: Path) -> None:
    class Weights(Example):
        raises = WeightsError

    with pytest.raises(WeightsError, match="cannot be read"):
        read_record(path, Weights)


def test_a_field_can_have_the_task_s_own_name_in_files() -> None:
    kind = renamed(Example, quality="map50")
    record = kind.model_validate({"map50": 0.25})
    assert (record.quality, record.as_record()["map50"]) == (0.25, 0.25)
    with pytest.raises(RunError, match="map50: given 2; must be less than or equal to 1"):
        checked({"map50": 2}, kind, "here")


LINES = st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=50, deadline=None)
@given(written=st.lists(LINES, max_size=4), torn=LINES, cut=st.integers(0, 10_000), later=LINES)
def test_a_line_torn_at_any_byte_is_ignored_and_written_over(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[dict[str, Any]],
    torn: dict[str, Any],
    cut: int,
    later: dict[str, Any],
) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    for record in written:
        append_record(path, record)
    line = json.dumps(torn, ensure_ascii=False).encode()
    with path.open("ab") as file:
        file.write(line[: cut % (len(line) + 1)])
    assert [record.model_extra for record in read_records(path, Anything)] == written
    append_record(path, later)
    assert [record.model_extra for record in read_records(path, Anything)] == [*written, later]


@pytest.mark.parametrize("line", [b"not json", b"[1]", b"\xff", b"", b"[" * 100_000])
def test_a_damaged_line_in_the_middle_is_told_by_its_number(path: Path, line: bytes) -> None:
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(RunError, match=rf"^'{path}', line 2 is damaged: it is not a JSON object"):
        read_records(path, Anything)


def test_a_changed_line_is_told_by_its_number(path: Path) -> None:
    for number in range(3):
        append_record(path, {"reward": number})
    path.write_bytes(path.read_bytes().replace(b'"reward": 1', b'"reward": 9'))
    with pytest.raises(RunError, match=rf"^'{path}', line 2 is damaged or was changed: digest"):
        read_records(path, Anything)


TENSORS = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones((), dtype=torch.bfloat16), "c": torch.zeros(0)}


class TestTensorFiles:
    def test_give_back_what_went_in(self, path: Path) -> None:
        path.write_bytes(to_tensor_file(EXAMPLE.as_record(), TENSORS))
        record, tensors = read_tensor_file(path, Example)
        assert record == EXAMPLE
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)

    def test_are_the_same_bytes_each_time(self) -> None:
        assert to_tensor_file({"b": 1, "a": 2}, TENSORS) == to_tensor_file({"b": 1, "a": 2}, TENSORS)

    def test_of_earlier_releases_have_no_digest(self, path: Path) -> None:
        path.write_bytes(save({"a": torch.ones(2)}, {"quality": "0.5"}))
        record, _ = read_tensor_file(path, Example, earlier=lambda header: {"quality": float(header["quality"])})
        assert record == Example(quality=0.5)

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: {**tensors, "a": -tensors["a"]},
            lambda tensors: {**tensors, "a": tensors["a"].reshape(2, 3)},
            lambda tensors: {**tensors, "a": tensors["a"].view(torch.int32)},
            lambda tensors: {**tensors, "b": tensors["a"], "a": tensors["b"]},
            lambda tensors: {**tensors, "d": tensors["b"].clone()},
            lambda tensors: {"a": tensors["a"]},
        ],
        ids=["values", "shape", "type", "exchanged", "more", "fewer"],
    )
    def test_whose_tensors_were_changed_are_refused(self, path: Path, change: Callable[..., Any]) -> None:
        path.write_bytes(to_tensor_file(EXAMPLE.as_record(), TENSORS))
        with safe_open(path, "pt") as file:
            header = file.metadata()
        path.write_bytes(save(change(load_file(path)), header))
        with pytest.raises(RunError, match=rf"^'{path}' is damaged or was changed: digest is"):
            read_tensor_file(path, Example)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (None, "cannot be read: No such file"),
            (b"", "cannot be read: "),
            (b"\x00" * 64, "cannot be read: "),
            (save({"a": torch.ones(2)}), "is damaged: quality: Field required"),
            (save({"a": torch.ones(2)}, {"record": "{"}), "is damaged: "),
            (save({"a": torch.ones(2)}, {"record": "[1]"}), "is damaged: it is not a JSON object"),
            (save({"a": torch.ones(2)}, {"record": '{"quality": 3}'}), "is damaged: quality: given 3; must be"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_that_are_damaged_are_refused(self, path: Path, data: bytes | None, message: str) -> None:
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(RunError, match=rf"^'{path}' {message}.*Measure it again"):
            read_tensor_file(path, Example)


def test_a_key_that_stands_twice_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "twice.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(RunError, match=r"twice\.json' cannot be read: the key 'a' stands twice in one object"):
        read_json(tmp_path / "twice.json")
