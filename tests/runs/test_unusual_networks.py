"""Networks of unusual outputs, names and frozen weights, from the training from scratch to the exported file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pruned import QUICK
from torch import Tensor, nn
from toy import digits_config

from prune_env import RunConfig
from prune_env.common.errors import ModelError
from prune_env.config.trust import EVERYTHING
from prune_env.env.builders import trace
from prune_env.env.loading import load_model, load_splits
from prune_env.models import save_weights
from prune_env.recover import Trainer
from prune_env.runs.evaluating import load_networks
from prune_env.runs.exporting import export_run
from prune_env.runs.finetuning import finish_finetuning, resume_finetuning, start_finetuning
from prune_env.runs.pretraining import finish_pretraining, resume_pretraining, start_pretraining
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of
from prune_env.runs.training_folder import TrainingFolder


class Heads(nn.Module):
    """A small classifier that gives two heads in training mode, and its scores and None in eval mode."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 10)
        self.second = nn.Linear(4, 10)
        self.requires_grad_(not frozen)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        x = torch.relu(self.stem(images))
        scores = self.fc(torch.relu(self.body(x)).mean((2, 3)))
        return scores, self.second(x.mean((2, 3))) if self.training else None


class Wrapper(nn.Module):
    """A network whose only child is named ``module``, as in DataParallel."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.module = Heads(**arguments)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs: tuple[Tensor, Tensor | None] = self.module(images)
        return outputs


def config_of(*overrides: str) -> RunConfig:
    return digits_config(
        f"model.name={__name__}:Wrapper",
        "run.device=cpu",
        "data.reward_images=1100",
        "pretrain.epochs=2",
        "pretrain.layout=contiguous",
        "pretrain.dtype=float32",
        *QUICK,
        *overrides,
    )


def pruned_run(root: Path, *overrides: str) -> RunDirectory:
    """A run with a plan and no search: half of every free unit stays."""
    config = config_of("pretrain.epochs=0", *overrides)
    run, splits = RunDirectory.create(root), load_splits(config)
    model = load_model(config, splits)
    run.write_config(config)
    save_weights(model, run.dense_weights)
    walk = trace(config, splits, model)
    run.write_bytes(run.plan, walk.plan({unit.name: unit.channels // 2 for unit in walk.free}).to_json())
    return run


@contextmanager
def interrupted_in_the_second_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the context, no training goes on after its first epoch."""
    really = Trainer.run_epoch

    def one_alone(self: Trainer, *given: Any) -> Any:
        if self.done == 1:
            raise KeyboardInterrupt
        return really(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", one_alone)
        yield


def test_a_wrapped_network_with_two_heads_is_trained_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start_pretraining(config_of(), tmp_path / "training")
    before = {name: tensor.clone() for name, tensor in started.network.state_dict().items()}
    with interrupted_in_the_second_epoch(monkeypatch), pytest.raises(KeyboardInterrupt):
        finish_pretraining(started)
    resumed = resume_pretraining(started.folder.root, EVERYTHING)
    summary = finish_pretraining(resumed)
    assert summary is not None
    assert 0.0 <= summary["test_accuracy"] <= 1.0
    trained = resumed.network.state_dict()
    assert not any(torch.equal(trained[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_a_wrapped_network_with_two_heads_is_finetuned_evaluated_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pruned_run(tmp_path / "run")
    started = start_finetuning(run, trust=EVERYTHING)
    with interrupted_in_the_second_epoch(monkeypatch), pytest.raises(KeyboardInterrupt):
        finish_finetuning(started)
    finished = finish_finetuning(resume_finetuning(run, trust=EVERYTHING))
    assert finished is not None
    assert [row.name for row in finished.rows] == ["dense", "recalibrated", "fine-tuned"]
    assert "fine-tuned" in load_networks(run, settings_of(run, trust=EVERYTHING), None).stages
    for to in ("safetensors", "torch-export"):
        assert export_run(run, to=to, trust=EVERYTHING)["difference"] < 1e-5


def test_a_frozen_network_is_refused_before_a_training_has_a_folder(tmp_path: Path) -> None:
    frozen = "model.arguments={frozen: true}"
    with pytest.raises(ModelError, match=r"No parameter of the network can be trained.*requires_grad_\(True\)"):
        start_pretraining(config_of(frozen), tmp_path / "training")
    assert not (tmp_path / "training").exists()
    run = pruned_run(tmp_path / "run", frozen)
    with pytest.raises(ModelError, match=r"No parameter of the network can be trained.*requires_grad_\(True\)"):
        start_finetuning(run, trust=EVERYTHING)
    assert not TrainingFolder(run.root / "finetune").root.exists()
