"""Detection by the commands: a search, its pictures, fine-tuning with a teacher, evaluation, export and inspection."""

import base64
import importlib.util
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from box_trees import voc_tree
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import rows_of

from prune_env.commands.evaluate import evaluate
from prune_env.commands.export import Target, export
from prune_env.commands.finetune import finetune
from prune_env.commands.inspect_walk import inspect_walk
from prune_env.commands.train import train
from prune_env.models.suppression import Rule
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a small search on squares on disk."""
    folder, random = tmp_path_factory.mktemp("boxes"), np.random.default_rng(0)
    inside = {}
    for number in range(40):
        x, y = int(random.integers(2, 30)), int(random.integers(2, 12))
        inside[f"i{number}"] = [("square", (x, y, x + 20, y + 20))]
    names = list(inside)
    root = voc_tree(folder / "voc", {"trainval": names[:32], "test": names[32:]}, inside)
    for name, [(_, (x0, y0, x1, y1))] in inside.items():
        path = root / "JPEGImages" / f"{name}.png"
        pixels = np.asarray(Image.open(path)).copy() // 3
        pixels[y0:y1, x0:x1] = 250
        Image.fromarray(pixels).save(path)
    settings = {
        "task": {"name": "detection"},
        "model": {"name": "centre_detector"},
        "data": {"name": "voc", "path": str(root), "image_size": [40, 64], "reward_images": 8, "calibration_images": 8},
        "execution": {"layout": "contiguous", "dtype": "float32", "batch": 8, "threads": 1},
        "run": {"device": "cpu", "directory": str(folder / "run")},
        "pretrain": {"epochs": 12, "batch_size": 4, "learning_rate": 0.05, "augment": "none"},
        "search": {"evaluations": 12},
        "finetune": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01},
        "budget": {"batch": 4},
    }
    (folder / "boxes.yaml").write_text(yaml.safe_dump(settings))
    return folder / "boxes.yaml"


@pytest.fixture(scope="module")
def run(config: Path) -> RunDirectory:
    train(config)
    return RunDirectory.open(yaml.safe_load(config.read_text())["run"]["directory"])


def test_a_search_ends_with_uniform_beside_the_agent_in_map(run: RunDirectory) -> None:
    summary = run.read_json(run.summary)
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["dense", "uniform", "ddpg"]
    assert rows["dense"]["test_map50"] > 0.5
    for row in rows.values():
        assert 0.0 <= row["test_map"] <= row["test_map50"] <= 1.0
        assert row["core_latency_ms"]["median"] <= 1.5 * row["latency_ms"]["median"]
    assert all("map50" in trial for trial in rows_of(run))


def test_pictures_of_dense_uniform_and_best_are_in_the_report_and_on_the_board(run: RunDirectory) -> None:
    with Image.open(run.pictures) as picture:
        width, height = picture.size
    assert base64.b64encode(run.pictures.read_bytes()).decode() in run.report.read_text()
    assert "From left to right: dense, uniform, ddpg." in run.report.read_text()
    board = EventAccumulator(str(run.tensorboard))
    board.Reload()
    (shown,) = board.Images("test/dense_and_best")
    with Image.open(BytesIO(shown.encoded_image_string)) as two:
        assert two.size == (width * 2 // 3, height)


def test_a_fine_tuning_with_a_teacher_is_measured_in_map(run: RunDirectory) -> None:
    finetune(run.root)
    rows = run.read_json(run.root / "finetune" / "summary.json")["rows"]
    assert rows[-1]["name"] == "fine-tuned"
    assert {"test_map50", "test_map", "test_loss"} <= rows[-1].keys()


def test_evaluate_tells_both_precisions_and_the_latency_with_and_without_nms(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    evaluate(run.root, batch=4, as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"test_map50", "test_map", "latency_ms", "core_latency_ms"} <= rows["recalibrated"].keys()
    evaluate(run.root, batch=4)
    printed = capsys.readouterr().out
    assert "before NMS" in printed
    assert "mAP50" in printed


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_an_export_is_the_part_before_nms_with_its_decoder(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, to: str
) -> None:
    capsys.readouterr()
    export(run.root, to=Target(to), into=tmp_path / "out", batch=4, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["part"] == "before NMS"
    assert record["difference"] <= 1e-4
    assert record["decoded_difference"] <= 1e-4
    model = "model.onnx" if to == "onnx" else "model.pt2"
    assert set(record["files"]) >= {model, "decoder.json", "decoder.py", "plan.json"}
    # Another program needs nothing but these files.
    settings = json.loads((tmp_path / "out" / "decoder.json").read_text())
    assert settings["outputs"] == ["scores", "boxes"]
    assert settings["image_size"] == [40, 64]
    spec = importlib.util.spec_from_file_location("decoder_beside", tmp_path / "out" / "decoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "decoder_beside", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    rule = module.Rule(**{key: settings[key] for key in Rule.__dataclass_fields__})
    if to == "torch-export":
        scores, boxes = torch.export.load(tmp_path / "out" / model).module()(torch.rand(2, 3, 40, 64))
        found = module.detections(boxes, scores, rule)
        assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2


def test_inspect_shows_the_units_of_a_detector(
    run: RunDirectory, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    inspect_walk(config, [f"model.weights={run.dense_weights}"], as_json=True)
    record = json.loads(capsys.readouterr().out)
    protected = {unit["name"] for unit in record["units"] if unit["protected"]}
    assert {name for name in protected if name.startswith("head")}
    assert "layer3.0.conv1" not in protected
    assert record["dense"]["map50"] > 0.3
