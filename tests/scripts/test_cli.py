"""The commands as a user runs them, on the shipped digits configuration with tiny sizes."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import DIGITS, rows_of

from prune_env import PruningPlan
from prune_env.models import build_model, save_weights
from prune_env.runs.run_directory import RunDirectory

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = [
    *(f"data.{name}={value}" for name, value in DIGITS["data"].items()),
    "pretrain.epochs=2",
    "search.evaluations=20",
]


def in_one_line(text):
    """Text as it was before the console wrapped it."""
    return " ".join(text.split())


def digits(*overrides):
    """The shipped configuration, with few images and a short training."""
    return [ROOT / "configs" / "digits.yaml", *TINY, *overrides]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One whole tiny run through the command line: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("work") / "run"
    command = [
        sys.executable,
        "-m",
        "prune_env.commands.cli",
        "train",
        *map(str, digits(f"run.directory={folder}")),
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, done


def test_a_run_leaves_every_artifact(finished_run):
    folder, done = finished_run
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.yaml",
        "plan.json",
        "policy.safetensors",
        "evaluations.jsonl",
        "splits.json",
        "sensitivity.json",
        "execution.json",
        "problem.json",
        "summary.json",
        "report.html",
        "tensorboard",
    }
    assert not [name for name in names if name.startswith(".")]
    assert isinstance(json.loads(done.stdout), dict)


def test_without_a_terminal_each_phase_and_every_few_evaluations_are_a_line(finished_run):
    lines = finished_run[1].stderr.splitlines()
    phases = ("training the dense network", "tracing the network", "measuring the fastest", "digits_resnet: 12 of 13 u")
    places = [next(n for n, line in enumerate(lines) if line.startswith(words)) for words in phases]
    assert places == sorted(places)
    told = [line for line in lines if line.startswith("search: ")]
    assert [int(line.split()[1]) for line in told] == list(range(1, 21))
    assert all("20 evaluations, best reward " in line for line in told)
    assert "accuracy -;" in told[11]
    assert "accuracy -;" not in told[12]
    assert not any("\x1b" in line for line in lines)


def test_the_result_compares_dense_uniform_and_agent_within_the_budget(finished_run):
    result = json.loads(finished_run[1].stdout)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["dense", "uniform", "ddpg"]
    for name in ("uniform", "ddpg"):
        assert rows[name]["macs"] <= 0.5 * rows["dense"]["macs"]
        assert rows[name]["latency_ms"]["q1"] <= rows[name]["latency_ms"]["q3"]
    assert all(0.0 <= row["test_accuracy"] <= 1.0 for row in rows.values())


def test_the_exported_plan_is_the_best_trial_of_the_agent(finished_run):
    folder, _ = finished_run
    trials = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    agent = [trial for trial in trials if trial["kind"] == "ddpg"]
    best = max(agent, key=lambda trial: trial["reward"])
    plan = PruningPlan.load(folder / "plan.json")
    assert {name: plan.widths[name] for name in best["widths"]} == best["widths"]
    assert plan.costs.macs == best["macs"]
    kinds = [trial["kind"] for trial in trials]
    assert (kinds.count("uniform"), kinds.count("probe") + kinds.count("ddpg")) == (1, 20)
    assert all(trial["macs"] <= 0.5 * plan.costs.dense_macs for trial in agent)


def test_the_sets_of_images_are_disjoint_and_recorded(finished_run):
    splits = json.loads((finished_run[0] / "splits.json").read_text())
    assert (len(splits["reward"]), len(splits["calibration"]), len(splits["test"])) == (40, 40, 20)
    assert not set(splits["reward"]) & set(splits["calibration"])


def test_tensorboard_shows_every_episode(finished_run):
    log = EventAccumulator(str(finished_run[0] / "tensorboard"))
    log.Reload()
    episodes = json.loads(finished_run[1].stdout)["episodes"]
    for tag in ("rollout/reward", "rollout/best_reward", "rollout/accuracy", "share/macs"):
        assert len(log.Scalars(tag)) == episodes


@pytest.mark.slow
def test_the_same_seed_finds_the_same_plan(finished_run, cli):
    folder, _ = finished_run
    code, out, err = cli("train", *digits("run.directory=again"))
    assert code == 0
    for words in ("dense", "uniform", "ddpg", "TensorBoard", "again/plan.json", "again/policy.safetensors"):
        assert words in out
    assert "reachable" in err
    assert "uniform" not in err
    assert Path("again/plan.json").read_bytes() == (folder / "plan.json").read_bytes()
    assert Path("again/policy.safetensors").read_bytes() == (folder / "policy.safetensors").read_bytes()


def test_evaluate_measures_a_run_again_and_agrees(finished_run, cli):
    folder, done = finished_run
    code, out, _ = cli("evaluate", folder, "--json")
    assert code == 0
    plan = {row["name"]: row for row in json.loads(out)["rows"]}["recalibrated"]
    agent = {row["name"]: row for row in json.loads(done.stdout)["rows"]}["ddpg"]
    for key in ("reward_accuracy", "test_accuracy", "macs", "params"):
        assert plan[key] == pytest.approx(agent[key])


def test_without_json_a_table_is_printed_on_standard_output(finished_run, cli):
    folder, _ = finished_run
    replay = ["replay", folder / "plan.json", *digits()]
    for command, chosen in ((["evaluate", folder], "recalibrated"), (replay, "replay")):
        code, out, err = cli(*command)
        assert code == 0
        for words in ("dense", "uniform", f" {chosen} ", "MACs", "digits_resnet"):
            assert words in out
            assert words not in re.sub(r"training the dense network|dense network: .*", "", err.partition("Next:")[0])
        assert "Next:" in err


@pytest.mark.parametrize(("repair", "told"), [("none", False), ("least_squares", True)])
def test_a_plan_that_was_found_with_another_repair_is_told_so(finished_run, cli, repair, told):
    settings = digits("pretrain.epochs=0", "run.force=true", f"repair.name={repair}")
    code, _, err = cli("replay", finished_run[0] / "plan.json", *settings, "--json")
    assert code == 0
    assert ("Give repair.name=none" in " ".join(err.split())) == told


def test_replay_applies_a_plan_to_fresh_weights(finished_run, cli):
    code, out, _ = cli("replay", finished_run[0] / "plan.json", *digits("seed=5"), "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert list(rows) == ["dense", "uniform", "replay"]
    assert rows["uniform"]["macs"] <= rows["replay"]["macs"] < rows["dense"]["macs"]


def test_replay_with_a_run_directory_writes_a_run_like_any_other(finished_run, cli):
    folder, _ = finished_run
    code, out, err = cli("replay", folder / "policy.safetensors", *digits("seed=5", "run.directory=again"))
    assert code == 0
    for other in ("uniform", "greedy"):
        assert re.search(rf"On the test set (replay|{other}) (beats|is as good as) (replay|{other})", out)
    assert "prune-env finetune again" in err
    run = RunDirectory.open("again")
    for file in (run.plan, run.policy, run.report, run.splits, run.dense_weights, run.scores, run.execution):
        assert file.is_file()
    assert run.policy.read_bytes() == (folder / "policy.safetensors").read_bytes()
    kinds = [row["kind"] for row in rows_of(run)]
    assert kinds == ["uniform", *["probe"] * 12, "replay"]
    rows = {row["name"]: row for row in run.read_json(run.summary)["rows"]}
    assert list(rows) == ["dense", "uniform", "greedy", "replay"]
    assert all(0.4 < row["macs"] / rows["dense"]["macs"] <= 0.5 for name, row in rows.items() if name != "dense")
    plan = PruningPlan.load(run.plan)
    assert plan.widths != PruningPlan.load(folder / "plan.json").widths or plan.costs.macs == rows["replay"]["macs"]
    assert cli("finetune", "again", "finetune.epochs=1", "--json")[0] == 0
    code, out, err = cli("export", "again", "--json")
    assert (code, json.loads(out)["weights"]) == (0, "fine-tuned")
    assert "accuracy, fine-tuned" in run.report.read_text()


def test_replay_of_a_plan_with_a_run_directory_costs_what_the_plan_costs(finished_run, cli):
    folder, _ = finished_run
    code, out, _ = cli("replay", folder, *digits("budget.keep=0.3", "run.directory=again"), "--json")
    assert code == 0
    assert PruningPlan.load("again/plan.json").kept == PruningPlan.load(folder / "plan.json").kept
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert rows["replay"]["macs"] == PruningPlan.load(folder / "plan.json").costs.macs
    assert rows["greedy"]["macs"] == pytest.approx(rows["replay"]["macs"], rel=0.02)


def test_a_search_starts_from_a_policy_and_is_resumed_without_its_file(finished_run, cli):
    shutil.copy(finished_run[0] / "policy.safetensors", "mine.safetensors")
    settings = digits("agent.policy=mine.safetensors", "run.directory=again", "search.evaluations=14")
    assert cli("train", *settings)[0] == 0
    Path("mine.safetensors").unlink()
    code, out, err = cli("train", "--resume", "again", "search.evaluations=16", "--json")
    assert (code, json.loads(out)["evaluations"]) == (0, 17), err


def test_train_goes_on_to_fine_tune_and_ends_with_the_dense_network_s_comparison(finished_run, cli):
    whole, _ = finished_run
    shutil.copytree(whole, "run", ignore=shutil.ignore_patterns("summary.json"))
    code, out, err = cli("train", "--resume", "run", "--finetune", "2")
    assert code == 0, err
    run = RunDirectory.open("run")
    tuned = run.read_json(run.root / "finetune" / "summary.json")
    assert len(tuned["epochs"]) == 2
    row = tuned["rows"][-1]
    sentence = f"fine-tuned: accuracy {row['test_accuracy']:.2%} on the test set, "
    assert sentence in out
    page = run.report.read_text()
    assert "accuracy, fine-tuned" in page
    assert f"{row['test_accuracy']:.2%}" in page
    assert row["latency_ms"]["q1"] > 0
    steps = err[err.index("Next:") :]
    assert "prune-env export run --to onnx" in steps
    assert "finetune" not in steps
    assert run.plan.read_bytes() == (whole / "plan.json").read_bytes()


def test_replay_walks_a_policy_over_another_network(finished_run, cli):
    command = ["replay", finished_run[0] / "policy.safetensors", *digits("model.name=small_net:build"), "--json"]
    code, out, _ = cli(*command)
    assert code == 2  # no such module yet: told in words
    Path("small_net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),\n"
        "        nn.Conv2d(12, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10))\n"
    )
    code, out, _ = cli(*command)
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert rows["replay"]["macs"] <= 0.5 * rows["dense"]["macs"]


def test_inspect_says_what_can_be_cut_and_why_not(cli):
    code, out, _ = cli("inspect", *digits("env.protect.conv1=stem stays"), "--json")
    assert code == 0
    record = json.loads(out)
    reasons = {unit["name"]: unit["protected"] for unit in record["units"]}
    assert reasons["conv1"] == "stem stays"
    assert reasons["linear"] == "its channels are the network's output"
    assert record["dense"]["macs"] == 2_532_992
    assert 0 < record["budget"]["reachable"][0] < 0.5
    assert record["seconds_per_episode"] > 0
    code, out, err = cli("inspect", *digits())
    assert code == 0
    for words in ("low-rank maps", "reachable: ", "an episode takes about", "free units reach"):
        assert words in out
        assert words not in err


def _bomb(path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (Path(path),))

    return pickle.dumps(Bomb())


MISTAKES = [
    (["budgt.keep=0.5"], "did you mean 'budget'"),
    (["budget.keeep=0.5"], "budget.keeep: unknown key; did you mean 'keep'"),
    (
        ["budget.keep=half"],
        'budget.keep: given "half"; must be a valid number, unable to parse string as a number '
        "(Share of the dense cost that may remain, in (0, 1].)",
    ),
    (["budget.keep=0.001"], "Reachable are 0.0"),
    (["data.name=cifar10", "data.path=nowhere"], "nowhere"),
    (["data.reward_images=100000"], "is too large: 1347 images"),
    (["model.name=digits_resnt"], "digits_resnet"),
    (["model.weights=nowhere.safetensors"], "nowhere.safetensors"),
    (["criterion.name=ll1"], "did you mean 'l1'"),
    (["reward.name=eror"], "did you mean 'error'"),
    (["agent.name=dpg"], "did you mean 'ddpg'"),
    (["env.protect.nowhere=why"], "no module 'nowhere'"),
    (["search.evaluations=3"], "the evidence alone takes 12"),
    (["run.device=cuda:7"], "no usable GPU"),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES)
def test_a_mistake_in_the_settings_is_told_in_words(cli, overrides, words):
    if "run.device=cuda:7" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, out, err = cli("train", *digits("pretrain.epochs=0", "run.directory=run", "run.force=true", *overrides))
    assert code == 2
    assert words in in_one_line(err)
    assert "Traceback" not in err
    assert len(err.splitlines()) < 24
    assert not out
    assert not Path("run").exists()


def test_a_run_directory_that_exists_is_not_touched(cli):
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    code, _, err = cli("train", *digits("run.directory=run"))
    assert code == 2
    assert "exists already" in err
    assert [path.name for path in Path("run").iterdir()] == ["notes.txt"]


def test_weights_of_another_network_name_the_first_module_that_differs(cli):
    save_weights(build_model("cifar_resnet20", 10, 1), Path("other.safetensors"))
    code, _, err = cli("train", *digits("model.weights=other.safetensors"))
    assert code == 2
    assert "other.safetensors does not fit the network: module 'layer2.0.shortcut.conv', 'weight'" in in_one_line(err)
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["plan.json", "policy.safetensors", "weights.pt", "weights.safetensors"])
def test_a_hostile_file_is_refused_and_never_run(cli, name):
    Path(name).write_bytes(_bomb("exploded"))
    if name.startswith("weights"):
        code, _, err = cli("inspect", *digits(f"model.weights={name}"))
    else:
        code, _, err = cli("replay", name, *digits("pretrain.epochs=0"))
    assert code == 2
    assert name in err
    assert not Path("exploded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plan.json", "policy.safetensors", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_its_name(finished_run, cli, name, share):
    data = (finished_run[0] / {"weights.safetensors": "dense.safetensors"}.get(name, name)).read_bytes()
    Path(f"cut_{name}").write_bytes(data[: int(share * len(data))])
    if name.startswith("weights"):
        code, out, err = cli("train", *digits(f"model.weights=cut_{name}", "run.directory=run"))
    else:
        code, out, err = cli("replay", f"cut_{name}", *digits("pretrain.epochs=0"))
    assert code == 2
    assert f"cut_{name}" in err
    assert "Traceback" not in err
    assert not out
    assert not Path("run").exists()


def test_a_plan_for_another_network_names_the_first_module_that_differs(finished_run, cli):
    code, _, err = cli("replay", finished_run[0] / "plan.json", *digits("model.name=cifar_resnet20"))
    assert code == 2
    assert "First module that differs" in err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan | {"version": 99}, "version 99"),
        (lambda plan: plan | {"units": [plan["units"][0] | {"kept": [0, 0]}]}, "more than once"),
        (lambda plan: plan | {"units": [plan["units"][0] | {"kept": [99999]}]}, "allowed are 0 to"),
        (lambda plan: [plan], "is not a plan"),
    ],
)
def test_a_damaged_plan_is_refused_in_words(finished_run, cli, damage, words):
    plan = json.loads((finished_run[0] / "plan.json").read_text())
    Path("bad.json").write_text(json.dumps(damage(plan)))
    code, _, err = cli("replay", "bad.json", *digits())
    assert code == 2
    assert words in err


def test_a_network_with_nothing_to_prune_is_refused(cli):
    Path("flat_net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    code, _, err = cli("train", *digits("model.name=flat_net:build"))
    assert code == 2
    assert "Nothing in this network can be pruned" in err
    assert not Path("runs").exists()


def test_weights_that_are_not_finite_stop_the_run_in_words(cli):
    state = build_model("digits_resnet", 10, 1).state_dict()
    state["linear.bias"][3] = float("nan")
    save_file(state, "nan.safetensors")
    code, _, err = cli("train", *digits("model.weights=nan.safetensors"))
    assert code == 2
    assert "linear.bias" in err


@pytest.mark.slow
def test_a_reward_that_is_not_finite_stops_the_search_and_keeps_what_was_found(cli):
    Path("my_reward.py").write_text(
        "import math\n"
        "calls = []\n"
        "def score(outcome, baseline):\n"
        "    calls.append(1)\n"
        "    return outcome.accuracy if len(calls) < 18 else math.nan\n"
    )
    code, _, err = cli("train", *digits("reward.name=my_reward:score", "run.directory=run"))
    assert code == 2
    assert "finite" in err
    assert "Traceback" not in err
    PruningPlan.load("run/plan.json")
    assert Path("run/evaluations.jsonl").read_text().count("\n") == 17


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inspect_walk", "train", "configs"])
def test_each_command_also_runs_as_a_file(name):
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
