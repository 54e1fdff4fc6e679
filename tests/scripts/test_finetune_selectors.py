"""`prune-env finetune` with selectors: groups choose new inputs, and a kill changes nothing."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from pruned import pruned_config, pruned_run
from safetensors.torch import load_file
from torch import Tensor, nn
from toy import TASK, trained_digits

from prune_env import PruningPlan
from prune_env.budget import Budget
from prune_env.commands.evaluate import evaluate
from prune_env.commands.export import Target, export
from prune_env.commands.finetune import finetune
from prune_env.common.errors import RunError
from prune_env.data import load_source
from prune_env.env.builders import trace
from prune_env.env.loading import load_splits
from prune_env.evaluation.measuring import measure
from prune_env.granularity.group import groups_of
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.granularity.group.grouping import Grouping
from prune_env.models import build_model, load_weights
from prune_env.recover import Epoch, Trainer
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training_folder import TrainingFolder

pytestmark = pytest.mark.slow

EPOCHS = 4
SELECT = ("granularity.selectors=true", f"finetune.epochs={EPOCHS}")
COUNTS = (1.0, 2.0, 4.0)
"""Groups of the plan's convolutions, in turn."""

Told = Callable[[], Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished search whose plan has groups with random inputs, so selectors can only improve the plan."""
    run = pruned_run(tmp_path_factory.mktemp("runs") / "run")
    config = pruned_config("granularity.name=group", "env.round_to=4")
    run.write_config(config)
    walk = trace(config, load_splits(config), trained_digits())
    grouping, generator = Grouping(walk, 4), np.random.default_rng(0)
    kernels = {
        found.name: generator.random(tuple(walk.model.get_submodule(found.name).weight.shape[:2]))
        for found in grouping.convolutions
    }
    scores = {unit.name: walk.magnitudes(unit) for unit in walk.units}
    builder = GroupPlanBuilder(Budget(walk, "macs", 0.5, round_to=4), grouping, scores, kernels)
    while not builder.finished:
        builder.decide((0.9, COUNTS[builder.number % len(COUNTS)]))
    kept = {name: channels.tolist() for name, channels in builder.kept.items()}
    run.write_bytes(run.plan, walk.plan_keeping(kept, builder.grouped).to_json())
    return run


@pytest.fixture(scope="module")
def searched(run: RunDirectory) -> PruningPlan:
    """The plan of the search."""
    return PruningPlan.load(run.plan)


@pytest.fixture(scope="module")
def printed(run: RunDirectory) -> dict[str, Any]:
    """The JSON output of a fine-tuning that nothing interrupted."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        finetune(run.root, [*SELECT], as_json=True)
    record: dict[str, Any] = json.loads(out.getvalue())
    return record


@pytest.fixture(scope="module")
def finished(run: RunDirectory, printed: dict[str, Any]) -> TrainingFolder:  # noqa: ARG001
    """The folder of the finished fine-tuning; not to be changed."""
    return TrainingFolder.open(run.root / "finetune")


@pytest.fixture(scope="module")
def tuned(finished: TrainingFolder) -> PruningPlan:
    """The plan with the inputs that the selectors have chosen."""
    return PruningPlan.load(finished.plan)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """The JSON that was printed since the last call."""
    capsys.readouterr()
    return lambda: json.loads(capsys.readouterr().out)


def copy_of(folder: TrainingFolder, name: str, *without: str) -> TrainingFolder:
    """A copy of the folder in the same run, without the files that a kill would prevent."""
    ignored = shutil.ignore_patterns(*without)
    return TrainingFolder(Path(shutil.copytree(folder.root, folder.root.with_name(name), ignore=ignored)))


def results_of(folder: TrainingFolder) -> dict[str, Any]:
    """A summary without the values that depend on the clock."""
    summary = folder.read_json(folder.summary)
    return {
        "refused": summary["refused"],
        "rows": [{key: row[key] for key in row if key != "latency_ms"} for row in summary["rows"]],
        "epochs": [{key: one[key] for key in ("number", "loss", "accuracy")} for one in summary["epochs"]],
    }


def network_of(plan: PruningPlan, folder: TrainingFolder) -> nn.Module:
    """The network that the plan and the weights make."""
    network = plan.apply(build_model("digits_resnet", 10, 1))
    load_weights(network, folder.weights)
    return network.eval()


def reads_of(plan: PruningPlan) -> dict[str, int]:
    """How many inputs each group reads, by convolution."""
    return {name: edit.reads for name, edit in groups_of(plan).items()}


def images() -> Tensor:
    source = load_source("digits")
    return source.load("test", np.arange(9))


def test_the_plan_of_the_run_leaves_something_to_choose(searched: PruningPlan) -> None:
    assert {2, 4} <= set(searched.groups.values())
    network = searched.apply(trained_digits())
    layers = {name: module for name, module in network.named_modules() if isinstance(module, GatheredConv2d)}
    assert (
        sum(groups_of(searched)[name].reads < layers[name].in_channels for name in searched.groups if name in layers)
        >= 3
    )


def test_the_folder_s_plan_has_the_same_groups_and_other_inputs(searched: PruningPlan, tuned: PruningPlan) -> None:
    assert (tuned.groups, reads_of(tuned)) == (searched.groups, reads_of(searched))
    assert all(set(tuned.kept[name]) <= set(kept) for name, kept in searched.kept.items())
    assert all(len(unit.kept) % 4 == 0 for unit in tuned.units if unit.protected is None)
    ours, theirs = groups_of(tuned), groups_of(searched)
    changed = [name for name in ours if ours[name].inputs != theirs[name].inputs]
    assert len(changed) >= 3


def test_the_run_s_own_plan_is_left_alone(run: RunDirectory, searched: PruningPlan, finished: TrainingFolder) -> None:
    assert run.plan.read_bytes() == searched.to_json()
    assert run.plan.read_bytes() != finished.plan.read_bytes()


def test_the_plan_and_the_weights_make_the_network_of_the_last_row(
    tuned: PruningPlan, finished: TrainingFolder, printed: dict[str, Any]
) -> None:
    network = network_of(tuned, finished)
    splits = load_splits(pruned_config())
    row = printed["rows"][2]
    for images_of, key in ((splits.reward(), "reward"), (next(splits.test_batches(100)), "test")):
        measured = measure(network, images_of.batches(len(images_of)), TASK)
        assert measured.quality == row[f"{key}_accuracy"]
    assert measured.loss == pytest.approx(row["test_loss"], rel=1e-4)
    assert sum(parameter.numel() for parameter in network.parameters()) == row["params"] == tuned.costs.params


def test_the_weights_hold_no_selector(finished: TrainingFolder) -> None:
    assert any("selector" in name for name in load_file(finished.selecting))
    assert not any("selector" in name or "shares" in name for name in load_file(finished.weights))


def test_the_dense_the_recalibrated_and_the_fine_tuned_network_are_compared(printed: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in printed["rows"]}
    assert list(rows) == ["dense", "recalibrated", "fine-tuned"]
    assert rows["fine-tuned"]["macs"] <= rows["recalibrated"]["macs"] <= 0.5 * rows["dense"]["macs"]
    for key in ("reward_accuracy", "test_accuracy"):
        assert rows["fine-tuned"][key] > rows["recalibrated"][key] + 0.2


def test_the_last_epoch_is_kept(printed: dict[str, Any]) -> None:
    assert printed["rows"][2]["reward_accuracy"] == printed["epochs"][-1]["accuracy"]


def test_evaluate_measures_the_network_of_the_folder_s_plan(
    run: RunDirectory, finished: TrainingFolder, printed: dict[str, Any], told: Told
) -> None:
    evaluate(run.root, batch=4, as_json=True)
    rows = {row["name"]: row for row in told()["rows"]}
    assert list(rows) == ["dense", "uniform", "cut", "recalibrated", "fine-tuned"]
    for key in ("reward_accuracy", "test_accuracy", "macs", "params"):
        assert rows["fine-tuned"][key] == pytest.approx(printed["rows"][2][key])
        assert rows["recalibrated"][key] == pytest.approx(printed["rows"][1][key])
    assert rows["fine-tuned"]["bytes"] == len(finished.weights.read_bytes())


@pytest.mark.parametrize("to", Target)
def test_export_writes_the_fine_tuned_network_with_its_own_plan(
    run: RunDirectory, finished: TrainingFolder, tuned: PruningPlan, tmp_path: Path, told: Told, to: Target
) -> None:
    export(run.root, to=to, into=tmp_path / "made", batch=4, as_json=True)
    record = told()
    assert record["weights"] == "fine-tuned"
    assert record["difference"] < 1e-5
    assert (tmp_path / "made" / "plan.json").read_bytes() == finished.plan.read_bytes()
    wanted = network_of(tuned, finished)
    with torch.no_grad():
        if to is Target.SAFETENSORS:
            found = PruningPlan.load(tmp_path / "made" / "plan.json").apply(build_model("digits_resnet", 10, 1)).eval()
            load_weights(found, tmp_path / "made" / "weights.safetensors")
            torch.testing.assert_close(found(images()), wanted(images()))
        elif to is Target.TORCH_EXPORT:
            program = torch.export.load(tmp_path / "made" / "model.pt2").module()
            torch.testing.assert_close(program(images()), wanted(images()))


def test_the_fine_tuning_of_a_plan_that_reads_otherwise_is_refused(
    run: RunDirectory, finished: TrainingFolder, tuned: PruningPlan, tmp_path: Path
) -> None:
    folder = copy_of(finished, tmp_path.name)
    folder.write_bytes(folder.started_plan, tuned.to_json())
    with pytest.raises(RunError, match="is the training of another plan"):
        evaluate(run.root, name=tmp_path.name)


@pytest.mark.parametrize("epochs", [1, 3], ids=["choosing", "chosen"])
def test_a_fine_tuning_that_is_killed_ends_as_one_that_was_not(
    run: RunDirectory, finished: TrainingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    really = Trainer.run_epoch

    def some_alone(self: Trainer, *given: Any) -> Epoch:
        if self.done == epochs:
            raise KeyboardInterrupt
        return really(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", some_alone)
        with pytest.raises(typer.Exit):
            finetune(run.root, [*SELECT], name=tmp_path.name)
    folder = TrainingFolder.open(run.root / tmp_path.name)
    assert not folder.weights.exists()
    assert folder.started_plan.read_bytes() == run.plan.read_bytes()
    assert not folder.plan.exists()
    finetune(run.root, name=tmp_path.name, resume=True)
    for one in ("weights", "selecting", "plan"):
        assert getattr(folder, one).read_bytes() == getattr(finished, one).read_bytes()
    assert results_of(folder) == results_of(finished)


@pytest.mark.parametrize(
    "without",
    [("summary.json",), ("summary.json", "weights.safetensors"), ("summary.json", "weights.safetensors", "plan.json")],
    ids=["before the summary", "before the weights", "before the plan"],
)
def test_a_kill_after_the_last_epoch_is_harmless(
    run: RunDirectory, finished: TrainingFolder, tmp_path: Path, without: tuple[str, ...]
) -> None:
    folder = copy_of(finished, tmp_path.name, *without)
    finetune(run.root, name=tmp_path.name, resume=True)
    for one in ("weights", "selecting", "plan"):
        assert getattr(folder, one).read_bytes() == getattr(finished, one).read_bytes()
    assert results_of(folder) == results_of(finished)


def test_without_an_average_the_weights_are_the_last_epoch_s_own(
    run: RunDirectory, searched: PruningPlan, tmp_path: Path
) -> None:
    finetune(run.root, ["granularity.selectors=true", "finetune.average=0", "finetune.epochs=1"], name=tmp_path.name)
    folder = TrainingFolder.open(run.root / tmp_path.name)
    summary = folder.read_json(folder.summary)
    assert summary["rows"][2]["reward_accuracy"] == summary["epochs"][0]["accuracy"]
    assert reads_of(PruningPlan.load(folder.plan)) == reads_of(searched)
