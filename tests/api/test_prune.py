"""`prune_env.prune`: a network in memory goes the way of the commands, and comes back smaller; nothing else changes."""

import gc
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toy import digits_config, rows_of, trained_digits

import prune_env
from prune_env import PruningPlan
from prune_env.api import PruningResult
from prune_env.api.pruning import _sizes
from prune_env.common.copying import copied
from prune_env.common.errors import BudgetError, ConfigError, DataError, DoubtfulNetworkError, ModelError, RunError
from prune_env.data import given_source, load_source
from prune_env.models import save_weights
from prune_env.report.whole_runs import run_search
from prune_env.testing.promises import Snapshot

FIXED = (
    "execution.layout=channels_last",
    "execution.dtype=float32",
    "execution.folded=true",
    "execution.batch=64",
    "execution.threads=1",
    "data.reward_images=40",
    "data.calibration_images=40",
)
EVALUATIONS = 14


def digits(split: str) -> TensorDataset:
    """The digits as the network takes them."""
    source = load_source("digits")
    labels = source.targets(split)
    return TensorDataset(source.load(split, np.arange(len(labels))), torch.from_numpy(labels))


def pruned(model: nn.Module, *overrides: str, train: Any = None, test: Any = None, **options: Any) -> PruningResult:
    given = {"evaluations": EVALUATIONS, "finetune_epochs": 0, "progress": False, **options}
    return prune_env.prune(model, train or digits("train"), test, overrides=[*FIXED, *overrides], **given)


def globals_now() -> list[Any]:
    """What a call must leave as it was."""
    return [
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.get_num_threads(),
    ]


@pytest.fixture(scope="module")
def whole() -> tuple[PruningResult, nn.Module, list[Any], list[Any], Snapshot]:
    """A call with loaders and fine-tuning, the network given, and what was before and after; not to be changed."""
    model = copied(trained_digits()).train()
    state, before = Snapshot(model), globals_now()
    train = DataLoader(digits("train"), batch_size=50, shuffle=True)
    result = pruned(model, train=train, test=DataLoader(digits("test"), 100), finetune_epochs=1)
    return result, model, before, globals_now(), state


@pytest.mark.slow
def test_the_given_network_and_all_global_state_stay_as_they_are(whole: Any) -> None:
    _, _, before, after, state = whole
    assert after == before
    assert state.difference() is None


@pytest.mark.slow
def test_the_result_is_smaller_within_the_budget_and_works(whole: Any) -> None:
    result, model, *_ = whole
    assert [row.name for row in result.rows] == ["dense", "uniform", "ddpg", "fine-tuned"]
    assert result.plan.costs.macs <= 0.5 * result.plan.costs.dense_macs
    count = sum(parameter.numel() for parameter in result.model.parameters())
    assert count < sum(parameter.numel() for parameter in model.parameters())
    assert not result.model.training
    chosen = next(row for row in result.rows if row.name == result.chosen)
    images, labels = digits("test").tensors
    with torch.no_grad():
        right = (result.model(images).argmax(1) == labels).float().mean().item()
    assert right == pytest.approx(chosen.test["accuracy"])
    assert result.policy is not None
    assert len(result.trials) == EVALUATIONS + 1


@pytest.mark.slow
def test_plan_summary_page_and_report_name_the_user_s_own_network(whole: Any) -> None:
    result, model, *_ = whole
    name = type(model).__name__
    assert result.plan.provenance["model"] == name
    assert f"{name} at 50% of the MACs" in result.report().html
    assert "prune_env.prune(model, train, test, keep=0.5" in result.report().html
    assert str(result) in result.summary()
    assert str(result).startswith(f"{result.chosen}: accuracy ")
    assert str(result).partition(";")[0] in result._repr_html_()
    assert '<tr class="chosen">' in result._repr_html_()
    assert 'srcdoc="&lt;!doctype' in "".join(result.report()._repr_html_().split("\n"))


@pytest.mark.slow
def test_what_is_saved_makes_the_same_network_from_the_architecture(whole: Any, tmp_path: Path) -> None:
    result, model, *_ = whole
    folder = result.save(tmp_path / "kept")
    exported = folder / "export-safetensors"
    again = PruningPlan.load(exported / "plan.json").apply(model).eval()
    again.load_state_dict(load_file(exported / "weights.safetensors"))
    images = digits("test").tensors[0][:20]
    torch.testing.assert_close(again(images), result.model(images))
    for file in ("config.yaml", "evaluations.jsonl", "report.html", "dense.safetensors", "finetune/summary.json"):
        assert (folder / file).is_file()
    with pytest.raises(RunError, match="exists already"):
        result.save(folder)


@pytest.mark.slow
def test_every_trial_is_a_row_of_the_data_frame(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result, *_ = whole
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r"pip install pandas.*\.trials"):
            result.to_dataframe()
    pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert len(frame) == len(result.trials)
    assert {"kind", "reward", "accuracy", "macs", "widths.conv1"} <= set(frame.columns)


@pytest.mark.slow
def test_it_finds_what_the_command_finds(tmp_path: Path) -> None:
    """The same settings, weights and images as in a run by name give the same trials."""
    model = trained_digits()
    result = pruned(model, "seed=3", test=digits("test"))
    save_weights(model, tmp_path / "dense.safetensors")
    settings = digits_config(
        *FIXED, "seed=3", f"search.evaluations={EVALUATIONS}", "data.test_images=null", "run.device=cpu",
        f"model.weights={tmp_path / 'dense.safetensors'}",
    )  # fmt: skip
    by_name = run_search(settings, tmp_path / "run")
    assert result.plan.kept == by_name.result.best.plan.kept
    assert [row.as_record() | {"latency_ms": None} for row in result.rows] == [
        row.as_record() | {"latency_ms": None} for row in by_name.rows
    ]
    keys = ("kind", "reward", "accuracy", "loss", "macs", "widths")
    assert [[trial[key] for key in keys] for trial in result.trials] == [
        [trial[key] for key in keys] for trial in rows_of(by_name.search.run)
    ]


@pytest.mark.slow
def test_without_test_images_and_a_folder_nothing_is_tested_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stopped: list[int] = []

    def stop(episode: Any) -> bool:
        stopped.append(episode.number)
        return episode.number < 2

    result = pruned(trained_digits(), "agent.name=random", "sensitivity.probe_keep=null", on_episode=stop)
    assert stopped == [0, 1, 2]
    assert [row.test for row in result.rows] == [{}, {}, {}]
    assert "on the reward set" in str(result)
    assert "not measured" in result._repr_html_()
    assert list(tmp_path.iterdir())
    del result
    gc.collect()
    assert not list(tmp_path.iterdir())


class Six(nn.Module):
    """A network with too few scores for ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)


def scaled(factor: float) -> Callable[[], TensorDataset]:
    """The digits with other intensities than the network knows."""

    def make() -> TensorDataset:
        images, labels = digits("train").tensors
        return TensorDataset(factor * (0.376 * images + 0.3053), labels)

    return make


@pytest.mark.parametrize(
    ("train", "model", "options", "error", "words"),
    [
        (scaled(255.0), trained_digits, {}, DoubtfulNetworkError, r"values from 0 to 255[\s\S]*force=True"),
        (scaled(1.0), trained_digits, {}, DoubtfulNetworkError, "batch norms measured anew"),
        (None, Six, {}, ModelError, r"output is of shape \[1, 6\]; a tensor of shape \[1, 10\]"),
        (None, lambda: "resnet18", {}, ModelError, r"A network \(torch\.nn\.Module\) is needed; str given"),
        (lambda: "images", trained_digits, {}, DataError, "train: str given"),
        (
            None,
            trained_digits,
            {"keep": 1.5},
            ConfigError,
            r"of prune_env\.prune:\n  budget\.keep: given 1\.5",
        ),
        (None, trained_digits, {"keep": 0.001}, BudgetError, "Reachable are"),
        (None, trained_digits, {"directory": "."}, RunError, "exists already"),
        (None, trained_digits, {"task": "segmentation"}, ConfigError, "there is no task 'segmentation'"),
        (None, trained_digits, {"device": "cuda:7"}, ModelError, r"cuda:7 given"),
    ],
)
def test_what_cannot_work_is_refused_before_any_search_and_leaves_nothing(
    train: Any, model: Any, options: Any, error: type[Exception], words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made, images = model(), train and train()
    before = globals_now()
    with pytest.raises(error, match=words):
        pruned(made, train=images, **options)
    assert globals_now() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("counts", "reward", "calibration"),
    [([5000] * 10, 1000, 256), ([135] * 10, 330, 256), ([900, 8], 200, 200), ([40, 30], 17, 17), ([1, 1], 1, 1)],
)
def test_the_sets_fit_the_classes_that_there_are(counts: list[int], reward: int, calibration: int) -> None:
    labels = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
    source = given_source((torch.zeros(len(labels), 1, 1, 1), labels))
    assert _sizes(source) == {"reward_images": reward, "calibration_images": calibration}
