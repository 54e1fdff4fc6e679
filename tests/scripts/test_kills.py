"""Commands that are killed at random moments, again and again, and repeated: they end as if nothing had happened."""

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from toy import digits_file

from prune_env.commands.compare import compare
from prune_env.commands.finetune import finetune
from prune_env.commands.train import train
from prune_env.evaluation import execution_memory
from prune_env.evaluation.execution import ExecutionChoice, ExecutionSettings
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

KILLS = 3

CHILDREN = multiprocessing.get_context("forkserver")
"""Child processes that are forked after torch is imported, so that they start in milliseconds."""
CHILDREN.set_forkserver_preload(["prune_env.commands.cli", "sklearn.datasets", "matplotlib.backends.backend_agg"])

Command = Callable[[], Any]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a search of a second or two."""
    folder = tmp_path_factory.mktemp("settings")
    settings = ("search.evaluations=14", "finetune.epochs=3", "finetune.layout=contiguous", "finetune.dtype=float32")
    sparse = ("sparsify.layout=contiguous", "sparsify.dtype=float32")
    return digits_file(folder, *settings, *sparse)


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


def started(command: Command) -> BaseProcess:
    process = CHILDREN.Process(target=command, daemon=True)
    process.start()
    return process


def killed_and_repeated(command: Callable[[], Command], whole: Command, seed: int) -> int:
    """Runs a command once in peace and notes its time; then kills and repeats another until it ends; counts kills."""
    begun = time.perf_counter()
    process = started(whole)
    process.join()
    assert process.exitcode == 0
    took, chance = time.perf_counter() - begun, random.Random(seed)
    for kills in range(KILLS):
        process = started(command())
        process.join(chance.uniform(0.1, 0.9) * took)
        if process.exitcode == 0:
            return kills
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = started(command())
    process.join()
    assert process.exitcode == 0
    return KILLS


def nothing() -> None:
    """What is left of a command that was killed after its end."""


def test_a_sparse_training_and_its_search(config: Path, tmp_path: Path) -> None:
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    sparse = ["sparsify.epochs=2", "sparsify.penalty=group_lasso", "sparsify.strength=0.01"]

    def command() -> Command:
        if run.summary.is_file():
            return nothing
        return partial(train, resume=run.root) if run.root.exists() else start(run)

    def start(one: RunDirectory) -> Command:
        return partial(train, config, [*sparse, f"run.directory={one.root}"])

    assert killed_and_repeated(command, start(whole), seed=1) > 0
    for name in ("dense.safetensors", "sparsify/weights.safetensors", "plan.json", "policy.safetensors"):
        assert (run.root / name).read_bytes() == (whole.root / name).read_bytes(), name


def test_a_fine_tuning(run: RunDirectory) -> None:
    killed = run.root / "killed"

    def command() -> Command:
        if (killed / "summary.json").is_file():
            return nothing
        return partial(finetune, run.root, name="killed", resume=killed.exists())

    assert killed_and_repeated(command, partial(finetune, run.root, name="whole"), seed=2) > 0
    for name in ("weights.safetensors", "plan.json"):
        assert (killed / name).read_bytes() == (run.root / "whole" / name).read_bytes(), name


def test_a_comparison(config: Path, tmp_path: Path) -> None:
    def command(folder: Path) -> Command:
        return partial(compare, config, [f"run.directory={folder}"], "uniform,random", seeds=1, as_json=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert killed_and_repeated(lambda: command(killed), command(whole), seed=3) > 0
    for name in ("uniform", "random"):
        plans = [(folder / "seed-0" / name / "plan.json").read_bytes() for folder in (whole, killed)]
        assert plans[0] == plans[1]
        results = [json.loads((folder / "compare.json").read_text())["searches"][name] for folder in (whole, killed)]
        assert results[0]["best"] == results[1]["best"]


def test_two_processes_that_start_one_run(config: Path, run: RunDirectory, tmp_path: Path) -> None:
    """One of them makes the run, the other one is refused; the run is that of one alone."""
    made = RunDirectory(tmp_path / "made")
    pair = [started(partial(train, config, [f"run.directory={made.root}"])) for _ in range(2)]
    for process in pair:
        process.join()
    assert sorted(process.exitcode == 0 for process in pair) == [False, True]
    assert made.plan.read_bytes() == run.plan.read_bytes()
    assert not list(tmp_path.rglob(".*.part"))


def test_two_processes_on_a_cold_cache(tmp_path: Path) -> None:
    """Both write what they measured, and neither ever reads a half of it."""
    pair = [started(partial(_remember, tmp_path / "cache", batch)) for batch in (32, 64)]
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert len(list((tmp_path / "cache").rglob("*"))) == 3  # two folders and one file


def _remember(cache: Path, batch: int) -> None:
    options = {
        "layout": ("channels_last",),
        "dtype": ("float32",),
        "folded": (True,),
        "batch": (32, 64),
        "threads": (1,),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        for _ in range(200):
            execution_memory.remember({}, ExecutionChoice(ExecutionSettings(batch=batch, threads=1), "measured"))
            found = execution_memory.recall({}, options)
            assert found is not None
            assert found.execution.batch in (32, 64)
