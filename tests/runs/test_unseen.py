"""Whether the reward set is known to hold images that no network was trained on."""

from pathlib import Path

import pytest
from toy import digits_config, trained_digits

from prune_env.data import Splits
from prune_env.env.loading import load_splits
from prune_env.models import save_weights
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.unseen import reward_set_is_unseen

SETS = ("data.reward_images=20", "data.calibration_images=10", "data.test_images=20", "run.device=cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(digits_config(*SETS))


def folder_of(root: Path, splits: Splits, *overrides: str) -> RunDirectory:
    run = RunDirectory.create(root)
    run.write_config(digits_config(*SETS, *overrides))
    run.write_record(run.splits, splits.record())
    return run


def test_a_run_that_trained_its_network_left_the_reward_set_out(tmp_path: Path, splits: Splits) -> None:
    run = folder_of(tmp_path / "run", splits, "pretrain.epochs=1")
    assert reward_set_is_unseen(run, splits)
    # A network that came with its own weights, for example from Python, may have been trained on any image.
    assert not reward_set_is_unseen(folder_of(tmp_path / "given", splits), splits)
    other = load_splits(digits_config(*SETS, "seed=1"))
    assert not reward_set_is_unseen(run, other)
    run.splits.unlink()
    assert not reward_set_is_unseen(run, splits)


@pytest.mark.parametrize(
    ("seed", "given", "unseen"), [(0, [], True), (1, [], False), (0, ["model.weights=elsewhere.safetensors"], False)]
)
def test_weights_of_a_pretraining_left_its_own_reward_set_out(
    tmp_path: Path, splits: Splits, seed: int, given: list[str], unseen: bool
) -> None:
    trained = folder_of(tmp_path / "pretrained", load_splits(digits_config(*SETS, f"seed={seed}")), *given)
    weights = trained.root / "weights.safetensors"
    save_weights(trained_digits(), weights)
    run = folder_of(tmp_path / "run", splits, f"model.weights={weights}")
    assert reward_set_is_unseen(run, splits) == unseen


def test_weights_from_elsewhere_may_have_seen_it(tmp_path: Path, splits: Splits) -> None:
    weights = tmp_path / "weights.safetensors"
    save_weights(trained_digits(), weights)
    run = folder_of(tmp_path / "run", splits, f"model.weights={weights}")
    assert not reward_set_is_unseen(run, splits)
