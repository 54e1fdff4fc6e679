"""A checkpoint gives back what went in; a damaged or foreign checkpoint is refused in words."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from practice import settings_of, trainer_of
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from toy import TASK

from prune_env.common.errors import RunError
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.recover import Epoch
from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint

FACTS: dict[str, Any] = {"settings": {"epochs": 2, "learning_rate": 0.05}, "seed": 3, "weights": "ab", "processes": 1}
EPOCHS = [Epoch(1, 1.25, 0.05, 2.0, 0.125, 0.5), Epoch(2, 1.0 / 3.0, 0.01, 1.0, 0.0, None)]


@pytest.fixture(scope="module")
def written() -> bytes:
    trainer = trainer_of(settings_of(average=0.3, layout="channels_last", dtype="bfloat16"))
    trainer.run_epoch()
    return to_checkpoint(trainer, EPOCHS, FACTS)


@pytest.fixture
def path(tmp_path: Path, written: bytes) -> Path:
    (tmp_path / "checkpoint.safetensors").write_bytes(written)
    return tmp_path / "checkpoint.safetensors"


def test_a_checkpoint_gives_back_what_went_in(tmp_path: Path) -> None:
    trainer = trainer_of(settings_of(average=0.3, layout="channels_last", dtype="bfloat16"))
    trainer.run_epoch()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(to_checkpoint(trainer, EPOCHS, FACTS))
    state, epochs, execution = read_checkpoint(path, FACTS, TASK)
    expected = trainer.state()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert {name.split(".")[0] for name in state} == {"model", "average", "momentum"}
    assert epochs == EPOCHS
    assert execution == ExecutionSettings.for_training("channels_last", "bfloat16")


def test_how_the_steps_ran_is_read_from_a_checkpoint_of_an_earlier_release(path: Path, written: bytes) -> None:
    def first(header: dict[str, str]) -> dict[str, str]:
        del header["execution"]
        return header | {"passes": '{"layout": "channels_last", "dtype": "bfloat16"}'}

    path.write_bytes(headed(written, path, lambda header: first(earlier(header))))
    state, epochs, execution = read_checkpoint(path, FACTS, TASK)
    assert (len(state) > 0, epochs) == (True, EPOCHS)
    assert execution == ExecutionSettings.for_training("channels_last", "bfloat16")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"settings": {"epochs": 3, "learning_rate": 0.05}}, "settings"),
        ({"weights": "cd"}, "weights"),
        ({"processes": 2}, "processes"),
        ({"seed": 4, "weights": "cd"}, "seed, weights"),
        ({"more": 1}, "more"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(
    path: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(RunError, match=rf"'{path}' belongs to a training with other {named}\. Resume with"):
        read_checkpoint(path, FACTS | change, TASK)


def earlier(header: dict[str, str]) -> dict[str, str]:
    """The header as earlier releases wrote it, an entry for each field, the quality by the task's name for it."""
    record = json.loads(header["record"])
    epochs = [{("accuracy" if key == "quality" else key): one[key] for key in one} for one in record["epochs"]]
    fields = {"epochs": epochs, "execution": record["execution"], "facts": record["facts"]}
    return {name: json.dumps(value) for name, value in fields.items()}


def with_field(data: bytes, path: Path, **fields: Any) -> bytes:
    """A checkpoint without a digest and with other fields; a field that is None is gone."""

    def change(header: dict[str, str]) -> dict[str, str]:
        record = {**json.loads(header["record"]), **fields}
        del record["digest"]
        return {"record": json.dumps({name: value for name, value in record.items() if value is not None})}

    return headed(data, path, change)


def headed(
    data: bytes,
    path: Path,
    change: Callable[[dict[str, str]], dict[str, str]],
    changed: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> bytes:
    """A checkpoint with another header, or other tensors."""
    path.write_bytes(data)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    return save({name: changed(tensor) for name, tensor in load_file(path).items()}, change(header))


DAMAGE: dict[str, Callable[[bytes, Path], bytes]] = {
    "empty": lambda _data, _path: b"",
    "half": lambda data, _path: data[: len(data) // 2],
    "all but a byte": lambda data, _path: data[:-1],
    "a byte more": lambda data, _path: data + b"\0",
    "garbage": lambda _data, _path: bytes(range(256)) * 40,
    "text": lambda _data, _path: json.dumps(FACTS).encode(),
    "foreign": lambda _data, _path: save({"weight": torch.ones(3)}),
    "foreign with a header": lambda _data, _path: save({"weight": torch.ones(3)}, {"format": "pt"}),
    "epochs": lambda data, path: with_field(data, path, epochs=[{"number": 1}]),
    "quality": lambda data, path: with_field(data, path, epochs=[{**asdict(EPOCHS[0]), "quality": 5}]),
    "execution": lambda data, path: with_field(data, path, execution={"speed": 1}),
    "no execution": lambda data, path: with_field(data, path, execution=None),
    "facts": lambda data, path: with_field(data, path, facts=[]),
    "no json": lambda data, path: headed(data, path, lambda _: {"record": "{"}),
    "epochs of earlier releases": lambda data, path: headed(
        data, path, lambda header: earlier(header) | {"epochs": '[{"number": 1}]'}
    ),
    "neither execution nor passes": lambda data, path: headed(
        data, path, lambda header: {name: text for name, text in earlier(header).items() if name != "execution"}
    ),
    "facts of earlier releases": lambda data, path: headed(data, path, lambda header: earlier(header) | {"facts": "{"}),
    "another value": lambda data, path: headed(
        data, path, lambda header: {"record": header["record"].replace("1.25", "1.5")}
    ),
    "other tensors": lambda data, path: headed(data, path, lambda header: header, lambda tensor: tensor + 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name(path: Path, written: bytes, damage: str) -> None:
    path.write_bytes(DAMAGE[damage](written, path))
    with pytest.raises(RunError, match=rf"'{path}' (is damaged|cannot be read).*training again"):
        read_checkpoint(path, FACTS, TASK)


def test_a_loss_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_checkpoint(trainer_of(settings_of()), [Epoch(1, float("nan"), 0.1, 1.0, 0.0)], FACTS)
