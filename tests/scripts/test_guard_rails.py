"""Commands measure the dense network first, and stop where a search on it makes no sense; ``--force`` goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import digits_file, digits_splits, trained_digits

from prune_env import LayerWalk

WRONG_SCALE = ("run.force=false", "data.reward_images=200", "data.mean=[0]", "data.std=[0.00392156862745098]")
"""Images of 0..255 for a network that was trained on normalised ones."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network whose images come in another scale."""
    return digits_file(tmp_path_factory.mktemp("wrong"), *WRONG_SCALE, "search.evaluations=14")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    LayerWalk.trace(trained_digits(), digits_splits().reward().images[:1]).plan({}).save(file)
    return file


@pytest.mark.parametrize("command", ["train", "inspect", "compare", "compare --criteria l1", "compare --fidelity"])
def test_every_command_stops_with_the_quality_and_the_reasons(
    config: Path, refused: Callable[..., str], tmp_path: Path, command: str
) -> None:
    name, *options = command.split()
    said = refused(name, config, f"run.directory={tmp_path / 'run'}", *options)
    assert "dense network: accuracy " in said
    assert "batch norms measured anew" in said
    assert "values from 0 to 255" in said
    assert "--force" in said
    assert not (tmp_path / "run").exists()


def test_a_replay_stops_as_well(config: Path, plan: Path, refused: Callable[..., str]) -> None:
    assert "batch norms measured anew" in refused("replay", plan, config)


def test_force_goes_on_with_a_warning_and_inspect_shows_the_scale(
    config: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = cli("inspect", config, "--force", "--json")
    assert code == 0
    assert "batch norms measured anew" in err
    assert json.loads(out)["data"]["std"] == [0.00392156862745098]


@pytest.mark.slow
def test_pruned_networks_far_above_the_dense_one_are_a_warning(
    config: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = cli("train", config, "--force")
    assert code == 0
    assert "is far better than the dense network on the reward set" in " ".join(out.split())
