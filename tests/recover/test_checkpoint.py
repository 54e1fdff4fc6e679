"""A checkpoint gives back what went in; a damaged or foreign checkpoint is refused in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from practice import settings_of, trainer_of
from safetensors import safe_open
from safetensors.torch import load_file, save
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
    def earlier(header: dict[str, str]) -> dict[str, str]:
        del header["execution"]
        return header | {"passes": '{"layout": "channels_last", "dtype": "bfloat16"}'}

    path.write_bytes(headed(written, path, earlier))
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


def headed(data: bytes, path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> bytes:
    """A checkpoint with another header."""
    path.write_bytes(data)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    return save(load_file(path), change(header))


DAMAGE: dict[str, Callable[[bytes, Path], bytes]] = {
    "empty": lambda _data, _path: b"",
    "half": lambda data, _path: data[: len(data) // 2],
    "all but a byte": lambda data, _path: data[:-1],
    "a byte more": lambda data, _path: data + b"\0",
    "garbage": lambda _data, _path: bytes(range(256)) * 40,
    "text": lambda _data, _path: json.dumps(FACTS).encode(),
    "foreign": lambda _data, _path: save({"weight": torch.ones(3)}),
    "foreign with a header": lambda _data, _path: save({"weight": torch.ones(3)}, {"format": "pt"}),
    "epochs": lambda data, path: headed(data, path, lambda header: header | {"epochs": '[{"number": 1}]'}),
    "execution": lambda data, path: headed(data, path, lambda header: header | {"execution": '{"speed": 1}'}),
    "neither": lambda data, path: headed(
        data, path, lambda header: {"epochs": header["epochs"], "facts": header["facts"]}
    ),
    "facts": lambda data, path: headed(data, path, lambda header: header | {"facts": "[]"}),
    "no json": lambda data, path: headed(data, path, lambda header: header | {"facts": "{"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name(path: Path, written: bytes, damage: str) -> None:
    path.write_bytes(DAMAGE[damage](written, path))
    with pytest.raises(RunError, match=rf"'{path}' is damaged or was written by another release .*training again"):
        read_checkpoint(path, FACTS, TASK)


def test_a_loss_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_checkpoint(trainer_of(settings_of()), [Epoch(1, float("nan"), 0.1, 1.0, 0.0)], FACTS)
