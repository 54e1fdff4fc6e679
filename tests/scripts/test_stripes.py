"""System C as a whole on the digits: sparse training, one threshold, fine-tuning, export; and an agent over stripes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from toy import digits_file, rows_of

from prune_env import PruningPlan
from prune_env.commands.export import export
from prune_env.commands.finetune import finetune
from prune_env.commands.replay import replay
from prune_env.commands.report import report
from prune_env.commands.train import train
from prune_env.granularity.stripe import StripedConv2d, stripes_of
from prune_env.runs.evaluating import load_networks
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import settings_of

pytestmark = pytest.mark.slow

SETTINGS = (
    "granularity.name=stripe",
    "criterion.name=texture",
    "sensitivity.enabled=false",
    "sensitivity.probe_keep=null",
    "budget.keep=0.5",
    "finetune.epochs=4",
    "finetune.batch_size=32",
    "finetune.layout=contiguous",
    "finetune.dtype=float32",
)
SPARSE = (
    "sparsify.epochs=4",
    "sparsify.penalty=cdp",
    "sparsify.strength=0.005",
    "sparsify.threshold=0.3",
    "sparsify.layout=contiguous",
    "sparsify.dtype=float32",
    "agent.name=thresholds",
    "search.evaluations=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The whole system, from sparse training to a fine-tuned network; not to be changed."""
    folder = tmp_path_factory.mktemp("system")
    started = time.perf_counter()
    train(digits_file(folder, *SETTINGS, *SPARSE), [f"run.directory={folder / 'run'}"])
    finetune(folder / "run")
    assert time.perf_counter() - started < 120
    return RunDirectory.open(folder / "run")


def summary(path: Path) -> Any:
    return json.loads(path.read_text())


def test_fine_tuning_recovers_what_the_stripes_cost(run: RunDirectory) -> None:
    rows = {row["name"]: row for row in summary(run.root / "finetune" / "summary.json")["rows"]}
    assert rows["fine-tuned"]["macs"] <= 0.5 * rows["dense"]["macs"]
    assert rows["fine-tuned"]["test_accuracy"] > rows["recalibrated"]["test_accuracy"] + 0.1
    assert rows["fine-tuned"]["test_accuracy"] > rows["dense"]["test_accuracy"] - 0.1


def test_the_network_computes_only_the_stripes_of_the_plan(run: RunDirectory) -> None:
    plan = PruningPlan.load(run.plan)
    edits = stripes_of(plan)
    assert edits
    small = plan.apply(load_networks(run, settings_of(run)).evaluator.walk.model)
    striped = {name: module for name, module in small.named_modules() if isinstance(module, StripedConv2d)}
    assert {name: len(module.weight) for name, module in striped.items()} == {
        name: edit.stripes for name, edit in edits.items()
    }


def test_rows_and_curves_and_the_report_know_the_stripes(run: RunDirectory) -> None:
    (row,) = [row for row in rows_of(run) if row["kind"] == "thresholds"]
    edited = {name: edit.stripes for name, edit in stripes_of(PruningPlan.load(run.plan)).items()}
    assert edited.items() <= row["stripes"].items()
    assert json.loads((run.root / "stripes.json").read_text())["stripes"].keys() == row["stripes"].keys()
    report([run.root])
    page = run.report.read_text()
    assert "Stripes" in page
    assert next(iter(row["stripes"])) in page


def test_the_fine_tuned_network_is_exported_with_its_plan(run: RunDirectory, tmp_path: Path) -> None:
    export(run.root, into=tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".safetensors", ".json"}


def test_an_agent_decides_stripes_and_its_policy_is_replayed(tmp_path: Path) -> None:
    config = digits_file(tmp_path, *SETTINGS, "search.evaluations=14", "agent.warmup_episodes=6")
    train(config, [f"run.directory={tmp_path / 'run'}"])
    run = RunDirectory.open(tmp_path / "run")
    rows = [row for row in rows_of(run) if row.get("stripes")]
    assert len({json.dumps(row["stripes"]) for row in rows}) > 3, "the agent tries one plan again and again"
    plan = PruningPlan.load(run.plan)
    assert plan.budget is not None
    assert plan.budget.achieved <= 0.5
    replay(run.policy, config, ["granularity.name=stripe"])
