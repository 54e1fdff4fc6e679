"""`prune-env compare --finetune`: every plan and the dense network by one recipe, paired by image and by seed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import digits_file

from prune_env import PruningPlan
from prune_env.commands.compare import compare
from prune_env.common.errors import ConfigError, RunError
from prune_env.evaluation.pairs import Pairs
from prune_env.report.recovery_table import render_recovery
from prune_env.runs.recovery_comparison import Difference, Recovered, RecoveryComparison
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.training_folder import TrainingFolder

SETTINGS = (
    "data.reward_images=100",
    "data.calibration_images=100",
    "data.test_images=100",
    "sensitivity.enabled=false",
    "sensitivity.probe_keep=null",
    "criterion.name=l1",
    "search.evaluations=2",
    "execution.batch=100",
    "execution.folded=true",
    "execution.dtype=float32",
    "execution.layout=contiguous",
    "execution.threads=1",
    "finetune.epochs=1",
    "finetune.layout=contiguous",
)
NAMES = ("dense", "uniform", "random")


def recovered(search: str, seed: int, quality: float, right: list[bool] | None = None) -> Recovered:
    told = None if right is None else torch.tensor(right)
    return Recovered(search, seed, 0.5, 0.4, 0.3, quality, 0.95, 1.0, told)


def comparison(*networks: Recovered) -> RecoveryComparison:
    return RecoveryComparison("toy", 3, "uniform", networks, "accuracy")


class TestPairing:
    def test_is_by_image_within_a_seed_and_by_seed_over_all(self) -> None:
        found = comparison(
            recovered("uniform", 0, 0.5, [True, False, True, False]),
            recovered("ddpg", 0, 0.75, [True, True, False, True]),
            recovered("uniform", 1, 0.6),
            recovered("ddpg", 1, 0.65),
        )
        assert found.pairs(found.networks[1]) == Pairs(2, 1, 4)
        assert found.pairs(found.networks[3]) is None
        record = found.as_record()
        assert record["networks"][1]["difference"] == pytest.approx(0.25)
        assert record["searches"]["ddpg"]["difference"]["mean"] == pytest.approx(0.15)
        assert record["searches"]["ddpg"]["difference"]["low"] < 0 < record["searches"]["ddpg"]["difference"]["high"]

    def test_of_a_single_seed_has_no_interval_over_seeds(self) -> None:
        assert Difference.of([0.1]) == Difference(0.1, None, None)

    def test_over_seeds_has_student_s_interval(self) -> None:
        # Student's t of two degrees of freedom is 4.303; the deviation of these is 0.01.
        found = Difference.of([0.01, 0.02, 0.03])
        assert vars(found) == pytest.approx({"mean": 0.02, "low": 0.02 - 0.02484, "high": 0.02 + 0.02484}, abs=1e-5)

    def test_tables_have_a_row_for_each_network_and_one_for_each_search(self) -> None:
        one = comparison(recovered("uniform", 0, 0.5), recovered("ddpg", 0, 0.75))
        (networks,) = render_recovery(one)
        assert networks.row_count == 3
        two = comparison(*one.networks, recovered("uniform", 1, 0.6), recovered("ddpg", 1, 0.65))
        networks, searches = render_recovery(two)
        assert (networks.row_count, searches.row_count) == (6, 2)


@pytest.mark.parametrize("other", [{"fidelity": True}, {"criteria": "l1"}])
def test_what_runs_no_search_has_nothing_to_fine_tune(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--finetune: given with --fidelity or --criteria"):
        compare(digits_file(tmp_path), finetune=True, **other)


def compared(config: Path, folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    """The JSON object of the command."""
    capsys.readouterr()
    given = [f"run.directory={folder}", *overrides]
    compare(config, given, "uniform,random", seeds=2, finetune=True, as_json=True)
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record["recovered"]


def trainings(folder: Path, name: str = "finetune") -> dict[str, TrainingFolder]:
    return {
        f"{seed} {search}": TrainingFolder(folder / f"seed-{seed}" / search / name)
        for seed in (0, 1)
        for search in NAMES
    }


@pytest.mark.slow
def test_every_network_is_trained_once_by_one_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = digits_file(tmp_path, *SETTINGS), tmp_path / "compare"
    record = compared(config, folder, capsys)
    assert record == json.loads((folder / "recovered.json").read_text())
    assert [(row["seed"], row["search"]) for row in record["networks"]] == [(s, n) for s in (0, 1) for n in NAMES]
    found = trainings(folder)
    assert len({one.read_json(one.summary)["execution"]["dtype"] for one in found.values()}) == 1
    for row in record["networks"]:
        training = found[f"{row['seed']} {row['search']}"]
        assert row["test_accuracy"] == training.read_json(training.summary)["rows"][2]["test_accuracy"]
        right, uniform = (load_file(one.right)["fine-tuned"] for one in (training, found[f"{row['seed']} uniform"]))
        assert Pairs(row["won"], row["lost"], row["images"]) == Pairs.of(right, uniform)
        assert (row["macs"] == 1.0) == (row["search"] == "dense")
    dense = PruningPlan.load(folder / "seed-0" / "dense" / "plan.json")
    assert all(len(unit.kept) == unit.channels for unit in dense.units)
    # One epoch, the same for all networks of a seed.
    assert [len(list(RunDirectory(folder / f"seed-{seed}").teacher.iterdir())) for seed in (0, 1)] == [1, 1]

    before = {name: one.summary.stat().st_mtime_ns for name, one in found.items()}
    found["1 random"].summary.unlink()
    assert compared(config, folder, capsys)["networks"][:5] == record["networks"][:5]
    kept = {name for name, one in found.items() if one.summary.stat().st_mtime_ns == before[name]}
    assert kept == before.keys() - {"1 random"}

    with pytest.raises(RunError, match=r"other finetune.learning_rate\. Give another number of finetune.epochs"):
        compared(config, folder, capsys, "finetune.learning_rate=0.01")
    longer = compared(config, folder, capsys, "finetune.epochs=2", "search.workers=2")
    assert longer["epochs"] == 2
    assert all(one.summary.is_file() for one in trainings(folder, "finetune-2").values())
    assert all(one.summary.stat().st_mtime_ns == before[name] for name, one in found.items() if name in kept)
