"""`prune-env train` with ``sparsify.epochs``: the search starts from sparse weights, and kills change nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import typer
from toy import digits_config, digits_file, rows_of, trained_digits

from prune_env import PruningEnv, RunConfig
from prune_env.commands.train import train
from prune_env.common.errors import BudgetError, ConfigError, RunError
from prune_env.common.fingerprint import weights_digest
from prune_env.common.records import read_record
from prune_env.data.splits import SplitsRecord
from prune_env.env.loading import load_model, load_splits
from prune_env.models import load_weights
from prune_env.recover import Epoch, Trainer
from prune_env.runs.comparison import compare_searches
from prune_env.runs.criterion_comparison import compare_criteria
from prune_env.runs.evaluating import load_networks
from prune_env.runs.fidelity import measure_fidelity
from prune_env.runs.finetuning import start_finetuning
from prune_env.runs.replaying import replay_on
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of, settings_to_replay_on
from prune_env.runs.sparsifying import finish_sparsifying, resume_sparsifying, start_sparsifying
from prune_env.runs.training_folder import TrainingFolder
from prune_env.search.policy import load_plan_or_policy

SETTINGS = (
    "sparsify.epochs=2",
    "sparsify.batch_size=32",
    "sparsify.strength=0.01",
    "sparsify.layout=contiguous",
    "sparsify.dtype=float32",
    "data.reward_images=700",
    "data.calibration_images=100",
    "data.test_images=100",
    "search.evaluations=30",
    "search.racing=false",
)


def file_of(folder: Path, *overrides: str) -> Path:
    return digits_file(folder, *SETTINGS, *overrides)


def tensors(path: Path) -> dict[str, Any]:
    return safetensors.torch.load_file(path)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose sparse training is finished and whose search has not started; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    finish_sparsifying(start_sparsifying(RunConfig.load(config), folder))
    return RunDirectory.open(folder)


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A whole run that nothing interrupted; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


class TestTraining:
    def test_the_folder_holds_what_a_training_leaves(self, trained: RunDirectory) -> None:
        folder = TrainingFolder.open(trained.sparsify)
        summary = folder.read_json(folder.summary)
        assert [epoch["number"] for epoch in summary["epochs"]] == [1, 2]
        assert set(summary["before"]) == set(summary["after"]) == {"reward_accuracy", "test_accuracy"}
        assert summary["before"]["reward_accuracy"] > 0.5
        assert summary["epochs"][-1]["accuracy"] == summary["after"]["reward_accuracy"]
        assert not trained.started
        for path in (folder.start, folder.checkpoint, folder.weights, folder.tensorboard):
            assert path.exists()

    def test_it_starts_from_the_dense_weights_and_ends_in_a_plain_network(self, trained: RunDirectory) -> None:
        folder, dense = TrainingFolder.open(trained.sparsify), trained_digits().state_dict()
        assert same(tensors(folder.start), dict(dense))
        found = tensors(folder.weights)
        assert found.keys() == dense.keys()
        assert not same(found, dict(dense))

    def test_one_that_was_interrupted_ends_as_one_that_was_not(
        self, config: Path, trained: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings, folder = RunConfig.load(config), tmp_path / "again"
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run_epoch", stopping_after(1))
            with pytest.raises(KeyboardInterrupt):
                finish_sparsifying(start_sparsifying(settings, folder))
        run = RunDirectory.open(folder)
        network = finish_sparsifying(resume_sparsifying(run))
        expected, found = TrainingFolder(trained.sparsify), TrainingFolder(run.sparsify)
        assert found.weights.read_bytes() == expected.weights.read_bytes()
        assert same(dict(network.state_dict()), tensors(expected.weights))

    def test_one_that_is_finished_is_not_repeated(self, trained: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Trainer, "run_epoch", stopping_after(0))
        network = finish_sparsifying(resume_sparsifying(trained))
        assert same(dict(network.state_dict()), tensors(TrainingFolder(trained.sparsify).weights))
        assert not network.training


def stopping_after(epochs: int) -> Callable[..., Epoch]:
    really = Trainer.run_epoch

    def run(self: Trainer, *given: Any) -> Epoch:
        if self.done == epochs:
            raise KeyboardInterrupt
        return really(self, *given)

    return run


class TestRefusals:
    def test_an_unknown_penalty_names_the_nearest(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"sparsify.penalty: there is no penalty 'grouplasso'.*'group_lasso'"):
            train(config, ["sparsify.penalty=grouplasso", f"run.directory={tmp_path / 'run'}"])
        assert not (tmp_path / "run").exists()

    def test_a_budget_out_of_reach_is_refused_before_the_training(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(BudgetError, match=r"budget.keep: 0.001 of the dense macs given"):
            train(config, ["budget.keep=0.001", f"run.directory={tmp_path / 'run'}"])
        assert not (tmp_path / "run").exists()

    def test_other_commands_say_how_to_use_sparse_weights(self, config: Path, tmp_path: Path, plan: Path) -> None:
        settings, folder = RunConfig.load(config), tmp_path / "folder"
        for refused in (
            lambda: compare_searches(settings, folder, ["uniform"], 1),
            lambda: compare_criteria(settings, folder, ["l1"], 1),
            lambda: measure_fidelity(settings, folder),
            lambda: replay_on(load_plan_or_policy(plan), settings),
            lambda: PruningEnv(settings),
        ):
            with pytest.raises(ConfigError, match=r"sparsify.epochs: 2 given.*model.weights=RUN/dense.safetensors"):
                refused()
        assert not folder.exists()

    @pytest.fixture
    def plan(self, tmp_path: Path) -> Path:
        from prune_env import LayerWalk

        config = digits_config()
        splits = load_splits(config)
        walk = LayerWalk.trace(load_model(config, splits), splits.reward().images[:1])
        walk.plan({}).save(tmp_path / "plan.json")
        return tmp_path / "plan.json"

    def test_other_data_are_refused(self, trained: RunDirectory) -> None:
        folder = TrainingFolder(trained.sparsify)
        record = folder.splits.read_bytes()
        try:
            other = read_record(folder.splits, SplitsRecord).model_copy(update={"train_images": 1})
            folder.write_record(folder.splits, other)
            with pytest.raises(RunError, match="differs from the current split"):
                resume_sparsifying(trained)
        finally:
            folder.splits.write_bytes(record)


@pytest.mark.slow
class TestRun:
    def test_the_search_starts_from_the_sparse_weights(self, finished: RunDirectory) -> None:
        sparse = load_model(digits_config(), load_splits(digits_config()))
        load_weights(sparse, TrainingFolder(finished.sparsify).weights)
        assert finished.execution_record().weights == weights_digest(sparse)
        assert same(tensors(finished.dense_weights), dict(sparse.state_dict()))

    def test_the_summary_tells_the_quality_before_and_after(self, finished: RunDirectory) -> None:
        summary = finished.read_json(finished.summary)
        whole = TrainingFolder(finished.sparsify)
        assert summary["sparsify"]["before"] == whole.read_json(whole.summary)["before"]
        assert summary["sparsify"]["epochs"] == 2
        assert summary["rows"][0]["name"] == "dense"
        assert summary["rows"][0]["test_accuracy"] == summary["sparsify"]["after"]["test_accuracy"]
        assert "The dense network was trained sparsely first, 2 epochs" in finished.report.read_text()

    def test_the_other_commands_take_the_sparse_weights(self, finished: RunDirectory, config: Path) -> None:
        settings = settings_of(finished)
        assert settings.model.weights == str(finished.dense_weights)
        assert settings.sparsify.epochs == 0
        assert settings_to_replay_on(finished.config) == settings
        given = str(config.parent / "other.safetensors")
        assert settings_of(finished, [f"model.weights={given}"]).model.weights == given
        network = load_networks(finished, settings).evaluator.walk.model
        assert weights_digest(network) == finished.execution_record().weights

    def test_fine_tuning_has_the_sparse_network_as_its_teacher(self, finished: RunDirectory) -> None:
        tuning = start_finetuning(finished, ["finetune.epochs=1"], name="tuned")
        assert weights_digest(tuning.dense) == finished.execution_record().weights
        assert settings_of(tuning.folder).model.weights == str(finished.dense_weights)

    @pytest.mark.parametrize("killed_in", ["training", "starting", "writing"])
    def test_a_run_that_was_killed_ends_as_one_that_was_not(
        self,
        killed_in: str,
        config: Path,
        finished: RunDirectory,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        run = RunDirectory(tmp_path / "run")
        with monkeypatch.context() as patch:
            if killed_in == "training":
                patch.setattr(Trainer, "run_epoch", stopping_after(1))
            elif killed_in == "starting":
                patch.setattr("prune_env.runs.searching.build_problem", killed)
            else:
                patch.setattr("prune_env.runs.starting.save_scores", killed)
            with pytest.raises(typer.Exit):
                train(config, [f"run.directory={run.root}"])
        assert not run.started
        train(resume=run.root)
        for name in ("dense.safetensors", "sparsify/weights.safetensors", "plan.json"):
            assert (run.root / name).read_bytes() == (finished.root / name).read_bytes(), name
        rows = [[record["widths"] for record in rows_of(one)] for one in (run, finished)]
        assert rows[0] == rows[1]

    def test_a_network_that_is_pretrained_on_the_spot_is_trained_sparsely_too(self, tmp_path: Path) -> None:
        config = digits_config(*SETTINGS, "pretrain.epochs=1", "sparsify.penalty=cdp", "sparsify.threshold=0.05")
        (tmp_path / "digits.yaml").write_text(config.dump_yaml())
        run = RunDirectory(tmp_path / "run")
        train(tmp_path / "digits.yaml", [f"run.directory={run.root}", "agent.name=uniform", "run.device=cpu"])
        folder = TrainingFolder(run.sparsify)
        assert same(tensors(run.dense_weights), tensors(folder.weights))
        assert not same(tensors(run.dense_weights), tensors(folder.start))
        assert settings_of(run).model.weights == str(run.dense_weights)
        assert set(folder.read_json(folder.summary)["effect"]["shares"]) > {"conv1", "layer1.0.conv1"}

    def test_no_epochs_leave_no_trace(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path / "run")
        file = file_of(tmp_path, "sparsify.epochs=0")
        train(file, [f"run.directory={run.root}", "agent.name=uniform"])
        assert not run.sparsify.exists()
        assert not run.dense_weights.exists()
        assert "sparsify" not in run.read_json(run.summary)


def test_what_the_search_would_refuse_is_refused_before_the_training(tmp_path: Path) -> None:
    settings = RunConfig.load(file_of(tmp_path, "granularity.name=group", "agent.name=thresholds"))
    with pytest.raises(ConfigError, match="thresholds needs strengths of 0 or more"):
        start_sparsifying(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
