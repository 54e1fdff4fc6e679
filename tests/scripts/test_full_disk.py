"""A full disk and a read-only one: one message that names the file, the earlier file whole, and a resume afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from practice import settings_of, trainer_of
from torch import nn
from toy import digits_file, digits_splits, image_set, toy_problem, toy_resnet, toy_walk

from prune_env import RunConfig
from prune_env.commands.train import train
from prune_env.common.errors import UserError
from prune_env.common.event_log import EventLog
from prune_env.common.files import in_words
from prune_env.criteria import ScoringContext, save_scores, score_channels
from prune_env.env import PruningEnv
from prune_env.models import save_weights
from prune_env.recover.checkpoint import to_checkpoint
from prune_env.report.loggers import CsvLogger, OptunaLogger
from prune_env.report.page import write_report
from prune_env.runs.export_formats import export_onnx, export_program
from prune_env.runs.folder import Folder
from prune_env.runs.journal import RunJournal
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun
from prune_env.search.policy import policy_of, save_policy

Write = Callable[[Path], Any]


def _policy(path: Path) -> None:
    env = PruningEnv(problem=toy_problem())
    inputs, numbers = env.observation_space.shape, env.action_space.shape
    assert inputs is not None
    assert numbers is not None
    save_policy(policy_of(nn.Sequential(nn.Linear(inputs[0], 8), nn.Linear(8, numbers[0]), nn.Tanh()), env), path)


def _scores(path: Path) -> None:
    context = ScoringContext(toy_walk(), image_set(8))
    save_scores("l1", context, score_channels("l1", context), path)


def _checkpoint(path: Path) -> None:
    trainer = trainer_of(settings_of())
    Folder(path.parent).write_bytes(path, to_checkpoint(trainer, [trainer.run_epoch()], {}))


def _log(path: Path) -> None:
    with EventLog(path) as log:
        log.add_image("picture", np.zeros((8, 8, 3), np.uint8), 0)


def _exported(exporter: Callable[..., Any]) -> Write:
    return lambda path: exporter(toy_resnet(), image_set(2).images, path)


def _search(log: str) -> SearchRun:
    config = RunConfig.from_mapping({"model": {"name": "toy"}, "data": {"name": "noise"}, "run": {"log": [log]}})
    return SearchRun(RunDirectory(Path("run")), config, digits_splits(), toy_problem())


WRITERS: dict[str, Write] = {
    "plan.json": lambda path: toy_walk().plan({}).save(path),
    "policy.safetensors": _policy,
    "scores.safetensors": _scores,
    "weights.safetensors": lambda path: save_weights(toy_resnet(), path),
    "checkpoint.safetensors": _checkpoint,
    "summary.json": lambda path: Folder(path.parent).write_json(path, {"x": "x" * 5_000}),
    "evaluations.jsonl": lambda path: RunDirectory(path.parent).append_evaluation({"x": "x" * 5_000}),
    "arrived.jsonl": lambda path: RunJournal(RunDirectory(path.parent), "accuracy").keep(
        {"number": 1, "x": "x" * 5_000}
    ),
    "tensorboard": _log,
    "evaluations.csv": lambda path: CsvLogger(path, toy_problem()),
    "study.db": lambda path: OptunaLogger(path, _search(f"optuna://{path}")),
    "model.pt2": _exported(export_program),
    "model.onnx": _exported(export_onnx),
}
"""Every writer of the library, by the file that it writes."""


def message_of(write: Write, path: Path) -> str:
    """The message that the command line prints where a writer fails."""
    with pytest.raises((UserError, OSError)) as caught:
        write(path)
    error = caught.value
    return str(error) if isinstance(error, UserError) else f"{error.filename}: {in_words(error)}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("model.") else []) for name in WRITERS]
)
def test_every_writer_names_its_file(name: str, full_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if name == "model.onnx":
        pytest.importorskip("onnx")
    said = message_of(WRITERS[name], full_disk / name)
    assert str(full_disk / name) in said
    assert "No space left on device; free some space, then repeat or resume the command" in said
    assert len(said) < 300
    assert "Traceback" not in capfd.readouterr().err
    assert not [path for path in full_disk.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_read_only_disk_is_named_as_such(disk: Any) -> None:
    place = disk("size=64k")
    (place / "run").mkdir()
    disk("ro")
    for name in ("plan.json", "evaluations.jsonl", "tensorboard"):
        said = message_of(WRITERS[name], place / "run" / name)
        assert "Read-only file system; give a folder on another file system" in said
    with pytest.raises(UserError, match=r"cannot be made: Read-only file system \('.*disk'\); choose another"):
        RunDirectory.check_free(place / "new")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDirectory]:
    """The settings of a small search, and its run on a disk with room."""
    folder = tmp_path_factory.mktemp("whole")
    config = digits_file(folder, "search.evaluations=14", "agent.name=ddpg", "granularity.name=channel")
    train(config, [f"run.directory={folder / 'run'}"])
    return config, RunDirectory.open(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [24, 68, 220])
def test_a_search_on_a_full_disk_ends_in_one_message_and_goes_on_with_more_room(
    kilobytes: int, finished: tuple[Path, RunDirectory], disk: Any, refused: Callable[..., str]
) -> None:
    config, whole = finished
    run = RunDirectory(disk(f"size={kilobytes}k") / "run")
    said = refused("train", config, f"run.directory={run.root}")
    assert said.count("error:") == 1
    assert said.count("No space left on device") == 1
    assert str(run.root.parent) in said.replace(" ", "")
    disk("size=20m")
    if run.summary.exists():
        write_report(run)
    elif run.root.exists():
        train(resume=run.root)
    else:
        train(config, [f"run.directory={run.root}"])
    assert run.plan.read_bytes() == whole.plan.read_bytes()
    assert run.policy.read_bytes() == whole.policy.read_bytes()
    assert not list(run.root.rglob(".*.part"))
