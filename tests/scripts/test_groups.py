"""The commands with groups: output, searches, files, resuming and replay."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import digits_file, rows_of

from prune_env import PruningPlan, RunConfig
from prune_env.budget import Budget
from prune_env.commands.inspect_walk import inspect_walk
from prune_env.commands.replay import replay
from prune_env.commands.train import train
from prune_env.common.errors import PlanError, RunError
from prune_env.env.loading import load_splits
from prune_env.env.problem import PruningProblem
from prune_env.granularity.group import Group, groups_of
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.pruning_rate import RatePlanBuilder
from prune_env.granularity.group.times import GroupMeasurements
from prune_env.report.board import watch_on_board
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun, search_into
from prune_env.runs.settings import settings_of
from prune_env.runs.starting import load_problem, start_run
from prune_env.search.policy import load_policy

pytestmark = pytest.mark.slow

EVALUATIONS = 14
GROUPED = "granularity.name=group"
RATES = (GROUPED, "granularity.action=pruning_rate")
ACTIONS = ("share", "pruning_rate")

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a search of channels of a second or two; nothing is trained or probed.

    Most actions are random; otherwise only luck would lead to a plan with many groups.
    """
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(
        folder,
        f"search.evaluations={EVALUATIONS}",
        "agent.warmup_episodes=10",
        "sensitivity.probe_keep=null",
        "budget.keep=0.4",
        "env.round_to=4",
    )


@pytest.fixture(scope="module")
def runs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, RunDirectory]:
    """A finished run for each meaning of an action; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for action in ACTIONS:
        train(config, [f"run.directory={folder / action}", GROUPED, f"granularity.action={action}"])
    return {action: RunDirectory.open(folder / action) for action in ACTIONS}


@pytest.fixture(scope="module")
def problem(runs: Mapping[str, RunDirectory]) -> PruningProblem:
    """The problem of the runs; it does not depend on the meaning of an action."""
    run = runs["share"]
    return load_problem(settings_of(run), run)[1]


@pytest.fixture(scope="module")
def channels(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run that cuts channels alone; not to be changed."""
    folder = tmp_path_factory.mktemp("channels") / "run"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


@pytest.fixture(params=ACTIONS)
def finished(request: pytest.FixtureRequest, runs: Mapping[str, RunDirectory]) -> RunDirectory:
    """Each of the finished runs."""
    return runs[request.param]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """The JSON that was printed since the last call."""
    capsys.readouterr()
    return lambda: json.loads(capsys.readouterr().out)


def interrupted(run: RunDirectory, root: Path, lines: int) -> RunDirectory:
    """A run that was killed after so many evaluations."""
    shutil.copytree(run.root, root, ignore=shutil.ignore_patterns("summary.json", "report.*", "plan.json", "policy.*"))
    copy = RunDirectory.open(root)
    copy.evaluations_file.write_bytes(b"".join(lines_of(copy)[:lines]))
    return copy


def search_on(run: RunDirectory, problem: PruningProblem, settings: RunConfig) -> RunDirectory:
    """Starts or resumes a search, without report and latency, which take most of a small run's time."""
    search_into(SearchRun(run, settings, load_splits(settings), problem.again()), watch_on_board)
    return run


def lines_of(run: RunDirectory) -> list[bytes]:
    return run.evaluations_file.read_bytes().splitlines(keepends=True)


def untimed(run: RunDirectory) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in ("seconds", "cached")} for row in rows_of(run)]


def times_of(grouping: Grouping, _: object) -> dict[str, dict[int, float]]:
    """A machine on which 4 groups are faster than a whole convolution, 8 are hardly faster, and 2 are slower."""
    seconds = {1: 1e-3, 2: 2e-3, 4: 0.5e-3, 8: 0.96e-3}
    return {
        found.name: {one: seconds[one] for one in seconds if one in found.counts} for found in grouping.convolutions
    }


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run on that machine."""
    monkeypatch.setattr("prune_env.granularity.group.granularity.time_groups", times_of)


def test_inspect_gives_times_allowed_counts_and_what_stays_whole(config: Path, told: Callable[[], Any]) -> None:
    inspect_walk(config, [GROUPED, "granularity.max_groups=4", "env.protect.layer2.0.conv2=mine"], as_json=True)
    found = told()["granularity"]["measured"]
    assert found["whole"]["conv1"] == "it reads no unit's channels"
    assert found["whole"]["linear"] == "it is a Linear and no nn.Conv2d"
    assert found["whole"]["layer2.0.conv2"] == "it is protected"
    assert found["times"].keys() == found["allowed"].keys()
    assert not found["times"].keys() & found["whole"].keys()
    assert "layer1.0.conv1" in found["times"]
    for name, times in found["times"].items():
        assert list(times) == ["1", "2", "4"]
        assert all(0.0 < seconds < 1.0 for seconds in times.values())
        assert found["allowed"][name] == [1, 2, 3, 4]


def test_inspect_of_channels_says_nothing_of_groups(config: Path, told: Callable[[], Any]) -> None:
    inspect_walk(config, as_json=True)
    assert told()["granularity"] == {"name": "channel", "measured": None}


@pytest.mark.usefixtures("machine")
def test_the_table_has_a_time_for_every_count_and_a_reason_for_what_stays_whole(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_walk(config, [GROUPED, "granularity.only_faster=true"])
    lines = capsys.readouterr().out.partition("by group count")[2].splitlines()
    rows = {cells[0]: cells[1:] for line in lines if len(cells := re.split(r"\s{2,}", line.strip())) > 1}
    # Counts in brackets are not allowed.
    assert rows["layer1.0.conv1"] == ["layer1.0.conv1", "1.00", "(2.00)", "0.50", "(0.96)"]
    assert rows["conv1"] == ["it reads no unit's channels"]
    assert rows["linear"] == ["it is a Linear and no nn.Conv2d"]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("action", ACTIONS)
def test_with_only_faster_groups_no_other_count_is_allowed_or_used(config: Path, tmp_path: Path, action: str) -> None:
    settings = RunConfig.load(config, [GROUPED, "granularity.only_faster=true", f"granularity.action={action}"])
    _, problem = load_problem(settings)
    measured = problem.granularity.measurements()
    assert isinstance(measured, GroupMeasurements)
    assert set(map(tuple, measured.allowed.values())) == {(1, 4)}
    run = search_on(RunDirectory.create(tmp_path / "run"), problem, settings)
    used = {count for row in rows_of(run) for count in row.get("groups", {}).values()}
    assert 4 in used
    assert used <= {1, 4}


def test_the_run_keeps_the_times_and_every_row_the_groups_of_its_plan(finished: RunDirectory) -> None:
    record = finished.read_json(finished.root / "groups.json")
    assert record.keys() == {"times", "allowed", "whole"}
    assert record["times"].keys() == record["allowed"].keys()
    assert all(seconds > 0 for times in record["times"].values() for seconds in times.values())
    rows = rows_of(finished)
    assert len(rows) == EVALUATIONS + 1
    uniform = [row for row in rows if row["kind"] == "uniform"]
    assert [row.keys() & {"groups", "reads"} for row in uniform] == [set()]
    grouped = [row for row in rows if "groups" in row]
    assert len(grouped) > EVALUATIONS // 2
    for row in grouped:
        assert row["groups"].keys() == row["reads"].keys() <= record["times"].keys()
        assert all(count in record["allowed"][name] for name, count in row["groups"].items())
    assert len({count for row in grouped for count in row["groups"].values()}) > 2


def test_the_plan_is_the_best_row_and_meets_the_budget(finished: RunDirectory) -> None:
    plan = PruningPlan.load(finished.plan)
    best = max((row for row in rows_of(finished) if row["kind"] == "ddpg"), key=lambda row: row["reward"])
    assert plan.costs.macs == best["macs"] <= 0.4 * plan.costs.dense_macs
    assert plan.groups == best.get("groups", {})
    assert {name: edit.reads for name, edit in groups_of(plan).items()} == best.get("reads", {})
    assert {name: plan.widths[name] for name in best["widths"]} == best["widths"]
    assert plan.budget is not None
    assert plan.budget.achieved == pytest.approx(plan.costs.macs / plan.costs.dense_macs)
    summary = finished.read_json(finished.summary)
    assert [row["name"] for row in summary["rows"]] == ["dense", "uniform", "ddpg"]
    assert summary["rows"][2]["macs"] == plan.costs.macs
    assert summary["evaluations"] == EVALUATIONS + 1


@pytest.mark.parametrize(("action", "numbers"), [("share", 2), ("pruning_rate", 1)])
def test_the_policy_decides_by_as_many_numbers_as_an_action_has(
    runs: Mapping[str, RunDirectory], action: str, numbers: int
) -> None:
    policy = load_policy(runs[action].policy)
    assert (policy.action, policy.granularity) == (action, "group")
    with safe_open(runs[action].policy, framework="np") as file:
        assert file.get_tensor("2.bias").shape == (numbers,)


def test_tensorboard_has_the_groups_of_every_episode_and_their_picture(finished: RunDirectory) -> None:
    log = EventAccumulator(str(finished.tensorboard))
    log.Reload()
    names = finished.read_json(finished.root / "groups.json")["times"].keys()
    tags = {tag for tag in log.Tags()["scalars"] if tag.startswith("units/groups/")}
    assert tags == {f"units/groups/{name}" for name in names}
    episodes = [row for row in rows_of(finished) if row["kind"] == "ddpg"]
    for name in names:
        expected = [(row["number"], row.get("groups", {}).get(name, 1)) for row in episodes]
        assert [(event.step, event.value) for event in log.Scalars(f"units/groups/{name}")] == expected
    (event,) = log.Images("units/groups")
    assert event.step == episodes[-1]["number"]
    assert np.asarray(Image.open(BytesIO(event.encoded_image_string))).std() > 5


def test_channels_alone_have_neither_curves_nor_a_file_of_groups(channels: RunDirectory) -> None:
    log = EventAccumulator(str(channels.tensorboard))
    log.Reload()
    assert not [tag for kind in ("scalars", "images") for tag in log.Tags()[kind] if "groups" in tag]
    assert not (channels.root / "groups.json").exists()
    assert not any({"groups", "reads"} & row.keys() for row in rows_of(channels))
    assert "<h2>Groups</h2>" not in channels.report.read_text()


class Rows(HTMLParser):
    """Reads a page's headings, and the rows of its tables by the heading above them."""

    def __init__(self) -> None:
        super().__init__()
        self.heading = ""
        self.rows: dict[str, list[list[str]]] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._open = tag
        if tag == "h2":
            self.heading = ""
        if tag == "tr":
            self.rows.setdefault(self.heading, []).append([])
        if tag in ("td", "th"):
            self.rows[self.heading][-1].append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.heading += data
        if self._open in ("td", "th"):
            self.rows[self.heading][-1][-1] += data


def test_the_report_has_the_groups_beside_the_milliseconds(finished: RunDirectory) -> None:
    page = Rows()
    page.feed(finished.report.read_text())
    heading, *rows = page.rows["Groups"]
    assert heading == ["convolution", "groups", "inputs a group", "ms in 1", "ms in 2", "ms in 4", "ms in 8"]
    plan, times = PruningPlan.load(finished.plan), finished.read_json(finished.root / "groups.json")["times"]
    assert [row[0] for row in rows] == list(times)
    edits = groups_of(plan)
    for name, groups, reads, *milliseconds in rows:
        assert groups == str(plan.groups.get(name, 1))
        assert reads == (str(edits[name].reads) if name in edits else "all")
        assert milliseconds == [f"{1e3 * seconds:.2f}" for seconds in times[name].values()]


def test_the_same_seed_makes_the_same_run(finished: RunDirectory, problem: PruningProblem, tmp_path: Path) -> None:
    again = search_on(RunDirectory.create(tmp_path / "again"), problem, settings_of(finished))
    assert again.plan.read_bytes() == finished.plan.read_bytes()
    assert again.policy.read_bytes() == finished.policy.read_bytes()
    assert untimed(again) == untimed(finished)


@pytest.mark.parametrize("lines", [7, EVALUATIONS + 1], ids=["half", "all"])
def test_a_search_that_was_killed_ends_as_one_that_was_not(
    finished: RunDirectory, problem: PruningProblem, tmp_path: Path, lines: int
) -> None:
    run = search_on(interrupted(finished, tmp_path / "run", lines), problem, settings_of(finished))
    assert untimed(run) == untimed(finished)
    assert run.plan.read_bytes() == finished.plan.read_bytes()
    assert run.policy.read_bytes() == finished.policy.read_bytes()


def test_a_resumed_run_uses_the_times_that_it_has_measured(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("timed again")

    settings = RunConfig.load(config, [GROUPED, "granularity.only_faster=true"])
    monkeypatch.setattr("prune_env.granularity.group.granularity.time_groups", times_of)
    splits, problem = load_problem(settings)
    whole = search_on(start_run(tmp_path / "whole", settings, splits, problem), problem, settings)
    monkeypatch.setattr("prune_env.granularity.group.granularity.time_groups", refuse)
    run = interrupted(whole, tmp_path / "run", 7)
    train(resume=run.root)
    assert untimed(run) == untimed(whole)
    assert run.plan.read_bytes() == whole.plan.read_bytes()
    assert run.report.is_file()


def _regroup(row: dict[str, Any]) -> None:
    name = next(iter(row["groups"]))
    row["groups"][name] *= 2


def _read_more(row: dict[str, Any]) -> None:
    name = next(iter(row["reads"]))
    row["reads"][name] += 1


def _forget(row: dict[str, Any]) -> None:
    del row["groups"], row["reads"]


@pytest.mark.parametrize("change", [_regroup, _read_more, _forget], ids=["groups", "reads", "none"])
def test_evaluations_with_other_groups_are_refused_by_their_number(
    finished: RunDirectory, problem: PruningProblem, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    run = interrupted(finished, tmp_path / "run", 9)
    rows = rows_of(run)
    number = max(number for number, row in enumerate(rows) if "groups" in row)
    change(rows[number])
    run.evaluations_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recorded = lines_of(run)
    with pytest.raises(RunError, match=rf"evaluation {number} of the run is .* cannot be resumed here") as refusal:
        search_on(run, problem, settings_of(finished))
    assert lines_of(run) == recorded
    # The message must describe the two plans differently; otherwise nobody could see the difference.
    told = re.findall(r"(?:groups|reads)(?: of [\w.]+)?: (.+?) recorded, (.+?) proposed", str(refusal.value))
    assert told
    assert all(there != here for there, here in told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"groups\.json' cannot be read"),
        ("{}", r"groups\.json' is damaged: times: Field required"),
        ('{"times": 3}', "is damaged: times: given 3"),
        ('{"times": {"layer1.0.conv1": {"1": -1.0}}}', r"is damaged: times\.layer1\.0\.conv1\.1: given -1\.0"),
        (
            '{"times": {"layer1.0.conv1": {"2": 1.0}}}',
            "is damaged: the times of layer 'layer1.0.conv1' lack",
        ),
        ('{"times": {"nowhere": {"1": 1.0}}}', r"groups\.json lacks the times of 'layer1\.0\.conv1'"),
    ],
)
def test_damaged_times_are_refused_by_their_file(
    runs: Mapping[str, RunDirectory], tmp_path: Path, text: str, words: str
) -> None:
    run = interrupted(runs["share"], tmp_path / "run", 3)
    (run.root / "groups.json").write_text(text)
    with pytest.raises(RunError, match=words):
        train(resume=run.root)


def test_replay_applies_a_plan_with_groups(finished: RunDirectory, config: Path, told: Callable[[], Any]) -> None:
    # The plan holds everything, so the settings need not allow groups.
    replay(finished.root, config, as_json=True)
    rows = {row["name"]: row for row in told()["rows"]}
    expected = finished.read_json(finished.summary)["rows"][2]
    for key in ("reward_accuracy", "test_accuracy", "macs", "params"):
        assert rows["replay"][key] == pytest.approx(expected[key])


def test_a_plan_with_groups_is_repaired_alike_whatever_the_settings_allow(
    config: Path, problem: PruningProblem, tmp_path: Path, told: Callable[[], Any]
) -> None:
    # A convolution that reads a whole unit in groups must make up for the inputs that it no longer reads.
    granularity = problem.granularity
    assert isinstance(granularity, Group)
    walk = problem.walk.protecting({"conv1": "mine"})
    grouping = Grouping(walk, 8)
    builder = RatePlanBuilder(Budget(walk, "macs", 0.6), grouping, problem.scores, granularity.kernels, 0.1)
    while not builder.finished:
        builder.decide((builder.even,))
    kept = {name: channels.tolist() for name, channels in builder.kept.items()}
    walk.plan_keeping(kept, builder.grouped, provenance={"repair": "least_squares"}).save(tmp_path / "plan.json")
    found = []
    for name in ("group", "channel"):
        settings = ["repair.name=least_squares", "env.protect.conv1=mine", f"granularity.name={name}"]
        replay(tmp_path / "plan.json", config, settings, as_json=True)
        found.append(next(row for row in told()["rows"] if row["name"] == "replay"))
    assert found[0]["macs"] == found[1]["macs"]
    assert found[0]["test_loss"] == pytest.approx(found[1]["test_loss"], rel=1e-3)


def test_replay_walks_a_policy_of_groups(
    runs: Mapping[str, RunDirectory], config: Path, told: Callable[[], Any]
) -> None:
    for action in ACTIONS:
        # The policy records the meaning of an action.
        replay(runs[action].policy, config, [GROUPED], as_json=True)
        rows = {row["name"]: row for row in told()["rows"]}
        assert rows["replay"]["macs"] <= 0.4 * rows["dense"]["macs"]


def test_a_plan_with_groups_is_refused_on_another_network(
    runs: Mapping[str, RunDirectory], config: Path, refused: Refused
) -> None:
    run = runs["pruning_rate"]
    assert PruningPlan.load(run.plan).groups
    said = refused("replay", run.plan, config, "model.name=cifar_resnet20", "model.weights=null")
    assert "First module that differs" in said


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda groups: {"conv9": groups["layer1.0.conv1"]}, "'conv9', a layer that the network does not have"),
        (lambda groups: {"linear": groups["layer1.0.conv1"]}, "it is a Linear and no nn.Conv2d"),
        (
            lambda groups: {"layer1.0.conv1": {"inputs": [[0], [99]], "filters": groups["layer1.0.conv1"]["filters"]}},
            "reads input channel 99, which is not one of the",
        ),
        (
            lambda _: {"layer1.0.conv1": {"inputs": [[0], [1]], "filters": [[0], [1]]}},
            "must be in exactly one group",
        ),
        (lambda _: {"layer1.0.conv1": {"inputs": [[0], [1, 2]], "filters": [[0], [1]]}}, "group 1 has 2 inputs"),
    ],
    ids=["missing", "linear", "outside", "filters", "uneven"],
)
def test_groups_that_do_not_fit_are_refused_by_their_convolution(
    runs: Mapping[str, RunDirectory],
    config: Path,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], dict[str, Any]],
    words: str,
) -> None:
    document = json.loads(runs["pruning_rate"].plan.read_text())
    unit = next(unit for unit in document["units"] if unit["name"] == "layer1.0.conv1")
    half = len(unit["kept"]) // 2
    halves = {"inputs": [[0], [1]], "filters": [unit["kept"][:half], unit["kept"][half:]]}
    document["edits"] = {"group": damage({"layer1.0.conv1": halves})}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=words):
        replay(tmp_path / "plan.json", config)


def test_a_policy_of_two_numbers_needs_groups(runs: Mapping[str, RunDirectory], config: Path, refused: Refused) -> None:
    said = refused("replay", runs["share"].policy, config)
    assert "granularity.name: channel given, but the policy was trained with group." in said
    assert "Give granularity.name=group." in said


def test_a_policy_of_rates_needs_groups(runs: Mapping[str, RunDirectory], config: Path, refused: Refused) -> None:
    said = refused("replay", runs["pruning_rate"].policy, config)
    assert "Give granularity.name=group." in said


@pytest.mark.parametrize(
    ("action", "override", "known"),
    [("pruning_rate", "env.min_keep=0.3", "0.1"), ("share", "granularity.max_groups=2", "8")],
)
def test_a_policy_is_refused_under_other_limits_before_the_task_is_made(
    runs: Mapping[str, RunDirectory],
    config: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    override: str,
    known: str,
) -> None:
    monkeypatch.setattr("prune_env.runs.replaying.build_problem", None)
    said = refused("replay", runs[action].policy, config, GROUPED, override)
    setting, given = override.split("=")
    assert f"{setting}: {given} given, but the policy was trained with {known}" in said
    assert f"Give {setting}={known}." in said


def test_a_policy_of_channels_does_not_decide_groups(channels: RunDirectory, config: Path, refused: Refused) -> None:
    said = refused("replay", channels.policy, config, GROUPED)
    assert "granularity.name: group given, but the policy was trained with channel." in said
    assert "Give granularity.name=channel." in said


@pytest.mark.parametrize("command", ["train", "inspect"])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["granularity.action=pruning_rate"], "granularity.action: given \"pruning_rate\"; must be 'share' or 'ratio'"),
        ([GROUPED, "budget.metric=latency"], "granularity.name: group given with a budget or reward of latency"),
        (
            [GROUPED, "reward.name=latency_penalty", "reward.settings.keep=0.5"],
            "granularity.name: group given with a budget or reward of latency",
        ),
        ([GROUPED, "granularity.max_groups=0"], "granularity.max_groups: given 0; must be greater than or equal to 1"),
        ([GROUPED, "granularity.max_groups=true"], "granularity.max_groups: given true; must not be true or false"),
        ([GROUPED, "criterion.kernels=l1"], "granularity.kernels"),
        (["granularity.name=groups"], "granularity.name"),
    ],
    ids=["no groups", "latency", "reward", "none", "true", "kernels", "groups"],
)
def test_what_cannot_be_is_refused_before_a_run_is_made(
    config: Path, tmp_path: Path, refused: Refused, command: str, overrides: list[str], words: str
) -> None:
    assert words in refused(command, config, f"run.directory={tmp_path / 'run'}", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_budget_that_rates_cannot_meet_is_refused_before_a_run_is_made(
    config: Path, tmp_path: Path, refused: Refused, command: str
) -> None:
    # Channels alone would meet the budget.
    settings = [*RATES, "budget.keep=0.1", "env.min_keep=0.2"]
    said = refused(command, config, f"run.directory={tmp_path / 'run'}", *settings)
    assert "at its highest pruning rate, 0.800" in said
    assert not (tmp_path / "run").exists()


def test_selectors_need_a_plan_with_groups(channels: RunDirectory, refused: Refused) -> None:
    said = refused("finetune", channels.root, GROUPED, "granularity.selectors=true")
    assert "granularity.selectors: true given, but no convolution of the plan falls into groups." in said
    assert not (channels.root / "finetune").exists()


@pytest.mark.parametrize("override", ["granularity.selectors=true", "finetune.selectors=true"])
def test_selectors_need_the_granularity_that_has_them(channels: RunDirectory, refused: Refused, override: str) -> None:
    assert "granularity.selectors: unknown key" in refused("finetune", channels.root, override)
    assert not (channels.root / "finetune").exists()
