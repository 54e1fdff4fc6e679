"""`prune-env evaluate` and `prune-env export` on a run, and the README's lines for what was exported."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import TASK, digits_file, trained_digits

import prune_env
from prune_env import PruningPlan
from prune_env.commands.evaluate import evaluate
from prune_env.commands.export import Target, export
from prune_env.commands.finetune import finetune
from prune_env.commands.report import report
from prune_env.commands.train import train
from prune_env.common.errors import ExportError, RunError
from prune_env.common.words import counted
from prune_env.data import load_source
from prune_env.models import build_model, load_weights
from prune_env.report.network_table import warnings_of
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that was fine-tuned for an epoch; not to be changed."""
    folder = tmp_path_factory.mktemp("work")
    config = digits_file(folder, "search.evaluations=20", "finetune.epochs=1")
    train(config, [f"run.directory={folder / 'run'}"])
    finetune(folder / "run")
    return RunDirectory.open(folder / "run")


@pytest.fixture
def run(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the run, which a test may change."""
    shutil.copytree(finished.root, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """The JSON that was printed since the last call."""
    capsys.readouterr()
    return lambda: json.loads(capsys.readouterr().out)


def dense() -> torch.nn.Module:
    return trained_digits()


def test_evaluate_puts_every_stage_side_by_side(run: RunDirectory, told: Callable[[], Any]) -> None:
    evaluate(run.root, batch=7, as_json=True)
    record = told()
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["dense", "uniform", "cut", "recalibrated", "fine-tuned"]
    assert record["batch_size"] == 7
    assert isinstance(record["warnings"], list)
    assert record["threads"] == torch.get_num_threads()
    cut, tuned = rows["cut"], rows["fine-tuned"]
    assert cut["macs"] == rows["recalibrated"]["macs"] == tuned["macs"] < rows["dense"]["macs"]
    assert tuned["bytes"] == len((run.root / "finetune" / "weights.safetensors").read_bytes())
    assert cut["test_accuracy"] < tuned["test_accuracy"]
    assert tuned["test_accuracy"] <= tuned["test_top5"] <= 1.0
    assert tuned["test_loss"] < cut["test_loss"]
    summary = run.read_json(run.root / "finetune" / "summary.json")["rows"][-1]
    for key in ("test_accuracy", "test_top5", "reward_accuracy"):
        assert tuned[key] == pytest.approx(summary[key])
    assert all(
        row["latency_ms"]["q1"] <= row["latency_ms"]["median"] <= row["latency_ms"]["q3"] for row in rows.values()
    )


def test_evaluate_of_a_run_that_was_not_fine_tuned_has_no_such_row(run: RunDirectory, told: Callable[[], Any]) -> None:
    shutil.rmtree(run.root / "finetune")
    evaluate(run.root, as_json=True)
    assert [row["name"] for row in told()["rows"]] == ["dense", "uniform", "cut", "recalibrated"]


@pytest.mark.parametrize("command", [evaluate, export])
def test_a_fine_tuning_that_is_missing_or_not_finished_is_not_passed_over(
    run: RunDirectory, command: Callable[..., None]
) -> None:
    with pytest.raises(RunError, match=r"finetnue' holds no finished fine-tuning"):
        command(run.root, name="finetnue")
    (run.root / "finetune" / "summary.json").unlink()
    with pytest.raises(RunError, match=r"--name finetune --resume` resumes"):
        command(run.root)


def test_evaluate_refuses_the_fine_tuning_of_another_plan(run: RunDirectory) -> None:
    document = json.loads(run.plan.read_text())
    free = next(unit for unit in document["units"] if len(unit["kept"]) < unit["channels"])
    free["kept"] = free["kept"][:-1]
    (run.root / "finetune" / "plan.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="is the training of another plan"):
        evaluate(run.root)


def test_where_macs_fell_and_latency_did_not_it_is_said(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    from prune_env.common.latency import Latency
    from prune_env.runs.networks import NetworkRow

    def row(name: str, macs: int, seconds: float | None) -> NetworkRow:
        latency = None if seconds is None else Latency(seconds, seconds, seconds)
        return NetworkRow(name, TASK, 0.9, {"accuracy": 0.9, "top5": 1.0, "loss": 0.1}, macs, 10, 10, latency)

    rows = [
        row("dense", 100, 1.0),
        row("slow", 50, 0.97),
        row("fast", 50, 0.6),
        row("wide", 97, 1.0),
        row("x", 50, None),
    ]
    (warning,) = warnings_of(rows)
    assert warning.startswith("slow does 50% of the MACs but takes 97% of the time")
    evaluate(run.root)
    out = capsys.readouterr().out
    for words in ("fine-tuned", "top-5", "ms a batch of 32", counted(torch.get_num_threads(), "thread")):
        assert words in out


@pytest.mark.parametrize("to", Target)
def test_export_writes_the_fine_tuned_network_and_compares(
    run: RunDirectory, told: Callable[[], Any], to: Target
) -> None:
    export(run.root, to=to, as_json=True)
    record = told()
    assert record["weights"] == "fine-tuned"
    assert record["difference"] < 1e-5
    assert sorted(path.name for path in Path(record["folder"]).iterdir()) == record["files"]
    assert "plan.json" in record["files"]
    assert not [path for path in Path(record["folder"]).iterdir() if str(Path.cwd()).encode() in path.read_bytes()]
    with pytest.raises(RunError, match="exists already, and nothing is written over; choose another with --into"):
        export(run.root, to=to)


def contents(path: Path) -> list[bytes]:
    """The bytes of a file; those of its members, too, if it is a zip file."""
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as file:
        return [path.read_bytes(), *(file.read(name) for name in file.namelist())]


def test_what_is_given_away_names_no_place_and_no_machine(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("socket.gethostname", "platform.node"):
        monkeypatch.setattr(name, lambda: "machine-of-mine")
    for target in Target:
        export(run.root, to=target)
    report([run.root])
    files = [file for file in run.root.glob("export-*/*") if file.is_file()]
    assert {file.suffix for file in files} >= {".json", ".safetensors", ".onnx", ".pt2"}
    here = Path(prune_env.__file__).parents[1]
    hidden = ["machine-of-mine", str(run.root.parent), f"{Path.home()}/", f"{here}/", f"{Path(torch.__file__).parent}/"]
    for file in (*files, run.report):
        found = [place for place in hidden for content in contents(file) if place.encode() in content]
        assert not found, file.name


def test_what_is_not_fine_tuned_is_exported_as_recalibrated(run: RunDirectory, told: Callable[[], Any]) -> None:
    shutil.rmtree(run.root / "finetune")
    export(run.root, into=run.root / "elsewhere", as_json=True)
    assert told()["weights"] == "recalibrated"
    assert (run.root / "elsewhere" / "weights.safetensors").is_file()


def test_an_export_that_fails_leaves_nothing(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prune_env.runs.export_formats.CLOSE", -1.0)
    with pytest.raises(ExportError, match="The file is not written"):
        export(run.root, to=Target.TORCH_EXPORT)
    assert not [path for path in run.root.iterdir() if "export" in path.name or path.suffix == ".part"]


def readme_block(words: str) -> str:
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if words in block]
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 5
    return str(blocks[0])


def test_the_readme_s_lines_load_what_was_exported(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(run.root, to=Target.TORCH_EXPORT, into=tmp_path / "program")
    export(run.root, into=tmp_path / "weights")
    wanted = PruningPlan.load(run.plan).apply(dense())
    load_weights(wanted, run.root / "finetune" / "weights.safetensors")
    images = load_source("digits").load("test", load_source("digits").targets("test")[:9] * 0 + range(9))
    monkeypatch.chdir(tmp_path / "program")
    plain: dict[str, Any] = {"images": images}
    exec(readme_block("torch.export.load"), plain)
    torch.testing.assert_close(plain["scores"], wanted(images))
    monkeypatch.chdir(tmp_path / "weights")
    ours: dict[str, Any] = {"dense": build_model("digits_resnet", 10, 1)}
    exec(readme_block("load_file"), ours)
    torch.testing.assert_close(ours["model"](images), wanted(images))
