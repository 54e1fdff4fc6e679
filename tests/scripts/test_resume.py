"""`prune-env train --resume`: a run that was killed at any moment ends as if nothing had happened."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import digits_file, policy_for, rows_of

from prune_env import RunConfig
from prune_env.commands.train import train
from prune_env.common.errors import ConfigError, RunError
from prune_env.env.loading import load_splits
from prune_env.env.problem import PruningProblem
from prune_env.report.board import watch_on_board
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun, search_into
from prune_env.runs.starting import load_problem
from prune_env.search.registry import SEARCHES

pytestmark = pytest.mark.slow

EVALUATIONS = 48
STARTING_KILLS = 6
SEARCHING_KILLS = 11
KILLS = 20

CHILDREN = multiprocessing.get_context("forkserver")
"""Child processes that are forked after torch is imported, so that they start in milliseconds."""
CHILDREN.set_forkserver_preload(["prune_env.commands.train", "sklearn.datasets", "matplotlib.backends.backend_agg"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a search of a second or two; nothing is trained or timed."""
    folder = tmp_path_factory.mktemp("settings")
    return digits_file(folder, f"search.evaluations={EVALUATIONS}")


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that nothing interrupted; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, [f"run.directory={folder}"])
    return RunDirectory.open(folder)


@pytest.fixture
def interrupted(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A run that was killed after 20 evaluations."""
    root = tmp_path / "interrupted"
    shutil.copytree(finished.root, root, ignore=shutil.ignore_patterns("summary.json", "report.*"))
    run = RunDirectory.open(root)
    keep_lines(run, 20)
    return run


def lines_of(run: RunDirectory) -> list[bytes]:
    return run.evaluations_file.read_bytes().splitlines(keepends=True) if run.evaluations_file.is_file() else []


def keep_lines(run: RunDirectory, count: int) -> None:
    run.evaluations_file.write_bytes(b"".join(lines_of(run)[:count]))


def change_line(run: RunDirectory, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a line, which then has no digest, as those of earlier releases."""
    lines = lines_of(run)
    record = rows_of(run)[number]
    change(record)
    lines[number] = json.dumps(record).encode() + b"\n"
    run.evaluations_file.write_bytes(b"".join(lines))


def evaluations_of(run: RunDirectory, *without: str) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in ("seconds", *without)} for row in rows_of(run)]


def curves_of(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """Every curve of TensorBoard, as steps and values, but those of workers, which depend on the clock."""
    log = EventAccumulator(str(run.tensorboard))
    log.Reload()
    tags = [tag for tag in log.Tags()["scalars"] if not tag.startswith("workers/")]
    return {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in tags}


def result_of(run: RunDirectory) -> dict[str, Any]:
    """Everything that a run leaves, without the values that depend on the clock."""
    summary = run.read_json(run.summary)
    told = ("evaluations", "episodes", "cache_hits", "images_left", "best_reward", "search", "budget")
    return {
        "plan": run.plan.read_bytes(),
        "policy": run.policy.read_bytes(),
        "evaluations": evaluations_of(run),
        "summary": {key: summary[key] for key in told},
        "rows": [{key: row[key] for key in row if key != "latency_ms"} for row in summary["rows"]],
        "curves": curves_of(run),
    }


def started(config: Path, run: RunDirectory, daemon: bool = True, overrides: Sequence[str] = ()) -> BaseProcess:
    """The run in a process of its own: resumed if its folder exists, otherwise started."""
    arguments: dict[str, Any] = {"config": config, "overrides": [f"run.directory={run.root}", *overrides]}
    if run.root.exists():
        arguments = {"resume": run.root, "overrides": list(overrides)}
    process = CHILDREN.Process(target=train, kwargs=arguments, daemon=daemon)
    process.start()
    return process


def wait_for_another_second(run: RunDirectory) -> None:
    """TensorBoard orders the logs of a run by the second in their names; no user restarts torch within one."""
    seconds = [int(log.name.split(".")[3]) for log in run.tensorboard.glob("events.*")]
    while seconds and int(time.time()) <= max(seconds):
        time.sleep(0.01)


def wait_for_lines(run: RunDirectory, count: int, process: BaseProcess) -> None:
    while process.is_alive() and len(lines_of(run)) < count:
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_was_not(
    config: Path, finished: RunDirectory, tmp_path: Path
) -> None:
    expected = result_of(finished)
    whole = RunDirectory(tmp_path / "whole")
    CHILDREN.Process(target=time.sleep, args=(0.0,)).start()  # starts the server that the others are forked from
    begun = time.perf_counter()
    process = started(config, whole)
    wait_for_lines(whole, 1, process)
    to_start = time.perf_counter() - begun
    wait_for_lines(whole, EVALUATIONS + 1, process)
    searched_at = time.perf_counter()
    process.join()
    to_finish = time.perf_counter() - searched_at
    assert result_of(whole) == expected

    generator = random.Random(0)
    later = ["start"] * STARTING_KILLS + ["search"] * SEARCHING_KILLS
    generator.shuffle(later)
    run = RunDirectory(tmp_path / "run")
    kills = while_growing = 0
    for moment in ["start"] * 3 + later + ["end"] * 2:
        wait_for_another_second(run)
        before = len(lines_of(run))
        process = started(config, run)
        if moment == "start":
            time.sleep(generator.uniform(0.0, to_start))
        elif moment == "search":
            wait_for_lines(run, before + generator.randint(1, 2), process)
            time.sleep(generator.uniform(0.0, 0.005))
        else:
            wait_for_lines(run, EVALUATIONS + 1, process)
            time.sleep(generator.uniform(0.0, 0.5 * to_finish))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        while_growing += before < len(lines_of(run)) <= EVALUATIONS
        if run.summary.is_file():
            break
    assert kills >= KILLS
    assert while_growing >= 6
    if not run.summary.is_file():
        wait_for_another_second(run)
        process = started(config, run)
        process.join()
        assert process.exitcode == 0
    assert result_of(run) == expected


def test_every_step_of_a_resumed_run_is_in_tensorboard_once(finished: RunDirectory, interrupted: RunDirectory) -> None:
    wait_for_another_second(interrupted)
    before = set(interrupted.tensorboard.glob("events.*"))
    train(resume=interrupted.root)
    # The log of the search, and that of its result.
    assert len(set(interrupted.tensorboard.glob("events.*")) - before) == 2
    curves = curves_of(interrupted)
    summary = interrupted.read_json(interrupted.summary)
    first = summary["evaluations"] - summary["episodes"]
    assert [step for step, _ in curves["rollout/reward"]] == list(range(first, summary["evaluations"]))
    assert curves == curves_of(finished)


def test_a_resumed_run_is_told_as_one_that_was_not_interrupted(
    finished: RunDirectory, interrupted: RunDirectory
) -> None:
    recorded = lines_of(interrupted)
    wait_for_another_second(interrupted)
    train(resume=interrupted.root)
    assert lines_of(interrupted)[:20] == recorded
    assert result_of(interrupted) == result_of(finished)
    assert interrupted.report.is_file()


def test_a_resumed_run_counts_the_seconds_that_it_took_before(interrupted: RunDirectory) -> None:
    change_line(interrupted, 3, lambda record: record.update(seconds=1000.0))
    train(resume=interrupted.root)
    assert 1000.0 < interrupted.read_json(interrupted.summary)["seconds"] < 1100.0


@pytest.mark.parametrize("lines", [0, 1, EVALUATIONS, EVALUATIONS + 1], ids=["none", "uniform", "all but one", "all"])
def test_a_run_can_be_resumed_after_any_number_of_evaluations(
    finished: RunDirectory, interrupted: RunDirectory, lines: int
) -> None:
    interrupted.evaluations_file.write_bytes(b"".join(lines_of(finished)[:lines]))
    for file in (interrupted.plan, interrupted.policy):
        file.unlink()
    train(resume=interrupted.root)
    assert evaluations_of(interrupted) == evaluations_of(finished)
    assert interrupted.plan.read_bytes() == finished.plan.read_bytes()
    assert interrupted.policy.read_bytes() == finished.policy.read_bytes()


def test_scores_that_the_run_holds_are_not_found_again(
    finished: RunDirectory, interrupted: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr("prune_env.env.builders.score_channels", refuse)
    train(resume=interrupted.root)
    assert interrupted.plan.read_bytes() == finished.plan.read_bytes()


def test_a_torn_last_line_is_measured_again(finished: RunDirectory, interrupted: RunDirectory) -> None:
    torn = lines_of(finished)[20]
    with interrupted.evaluations_file.open("ab") as file:
        file.write(torn[: len(torn) // 2])
    train(resume=interrupted.root)
    assert evaluations_of(interrupted) == evaluations_of(finished)
    assert interrupted.plan.read_bytes() == finished.plan.read_bytes()


def test_the_same_seed_makes_the_same_run_and_another_seed_another(
    config: Path, finished: RunDirectory, tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(config, [f"run.directory={tmp_path / str(seed)}", f"seed={seed}"])
    same, other = (RunDirectory.open(tmp_path / str(seed)) for seed in (0, 1))
    assert result_of(same) == result_of(finished)
    assert other.plan.read_bytes() != finished.plan.read_bytes()
    assert other.policy.read_bytes() != finished.policy.read_bytes()
    assert evaluations_of(other) != evaluations_of(finished)


def test_a_finished_run_is_said_to_be_finished(finished: RunDirectory, refused: Callable[..., str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    said = refused("train", "--resume", finished.root)
    assert "is finished: there is nothing left to do" in said
    assert "search.evaluations=N` with more than 48" in said
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before


def test_a_finished_run_that_is_extended_ends_as_one_that_was_planned_so(
    config: Path, finished: RunDirectory, interrupted: RunDirectory, tmp_path: Path
) -> None:
    """Whether it was finished before or interrupted, and also when it is killed while it is extended."""
    whole = RunDirectory(tmp_path / "whole")
    longer = (f"search.evaluations={EVALUATIONS + 9}", f"search.schedule={EVALUATIONS}")
    train(config, [f"run.directory={whole.root}", *longer])
    extended = RunDirectory(tmp_path / "extended")
    shutil.copytree(finished.root, extended.root)
    wait_for_another_second(extended)
    process = started(config, extended, overrides=[longer[0]])
    wait_for_lines(extended, EVALUATIONS + 4, process)
    process.kill()
    process.join()
    assert EVALUATIONS + 4 <= len(lines_of(extended)) < EVALUATIONS + 10
    assert not extended.summary.exists()
    wait_for_another_second(extended)
    train(resume=extended.root)
    wait_for_another_second(interrupted)
    train(resume=interrupted.root, overrides=[longer[0]])
    for run in (extended, interrupted):
        assert result_of(run) == result_of(whole)
        section = RunConfig.load(run.config).search
        assert (section.evaluations, section.schedule) == (EVALUATIONS + 9, EVALUATIONS)


def test_an_extension_that_finds_nothing_to_try_changes_nothing(config: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(config, [f"run.directory={run.root}", "agent.name=greedy", "sensitivity.enabled=false"])
    before = contents_of(run)
    with pytest.raises(RunError, match=r"'greedy' has nothing left to try: it ended after 16 evaluations\. Nothing in"):
        train(resume=run.root, overrides=["search.evaluations=60"])
    assert {**contents_of(run), **before} == contents_of(run)


def test_an_extension_of_a_run_that_proves_to_be_another_changes_nothing(
    finished: RunDirectory, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished.root, run.root)
    change_line(run, 30, _widen)
    before = contents_of(run)
    with pytest.raises(RunError, match="evaluation 30 of the run is of another plan"):
        train(resume=run.root, overrides=[f"search.evaluations={EVALUATIONS + 1}"])
    assert {**contents_of(run), **before} == contents_of(run)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "budget.keep=0.4",
            r"^budget\.keep: a resumed run keeps its own.* change search\.evaluations, search\.",
        ),
        ("env.protect.conv1=why", r"^env\.protect\.conv1: a resumed run keeps"),
        ("seed=3", r"^seed: a resumed run keeps"),
        ("search.schedule=9", r"^search\.schedule: a resumed run keeps"),
        (f"search.evaluations={EVALUATIONS - 1}", rf"given, but the run has {EVALUATIONS}\. Give {EVALUATIONS + 1} or"),
        ("search.workers=2", r"is finished: there is nothing left to do.*search\.evaluations=N` with more than 48"),
    ],
)
def test_settings_that_would_make_another_search_are_refused_by_name(
    finished: RunDirectory, override: str, words: str
) -> None:
    before = contents_of(finished)
    with pytest.raises((ConfigError, RunError), match=words):
        train(resume=finished.root, overrides=[override])
    assert contents_of(finished) == before


def test_an_interrupted_run_may_end_earlier_but_not_before_what_it_has(interrupted: RunDirectory) -> None:
    with pytest.raises(ConfigError, match=r"search\.evaluations: 18 given, but the run has 19\. Give 19 or more"):
        train(resume=interrupted.root, overrides=["search.evaluations=18"])
    train(resume=interrupted.root, overrides=["search.evaluations=25"])
    assert len(lines_of(interrupted)) == 26


def contents_of(run: RunDirectory) -> dict[Path, bytes]:
    """Every file of a run."""
    return {path: path.read_bytes() for path in sorted(run.root.rglob("*")) if path.is_file()}


def test_what_is_no_run_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "does not exist" in refused("train", "--resume", tmp_path / "nowhere")
    assert "is not a run directory: it has no config.yaml" in refused("train", "--resume", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_config_and_a_run_to_resume_exclude_each_other(
    config: Path, interrupted: RunDirectory, refused: Callable[..., str]
) -> None:
    recorded = lines_of(interrupted)
    said = refused("train", config, "--resume", interrupted.root)
    assert "--resume RUN to resume one with its own settings; both were given" in said
    said = refused("train", "--resume", interrupted.root, "search.workers=2", "search.lag=2")
    assert "search.lag: a resumed run keeps its own setting" in said
    assert "A resume may change search.evaluations, search.workers, run.address" in said
    assert lines_of(interrupted) == recorded


def test_a_run_needs_a_config_or_a_run_to_resume(refused: Callable[..., str]) -> None:
    assert "give a file of settings to start a run, or --resume RUN" in refused("train")
    assert "neither was given" in refused("train")


def _widen(record: dict[str, Any]) -> None:
    name = next(iter(record["widths"]))
    record["widths"][name] += 1


@pytest.mark.parametrize(
    ("number", "change"),
    [(0, _widen), (7, _widen), (15, _widen), (19, _widen), (15, lambda record: record.update(kind="random"))],
    ids=["uniform", "probe", "episode", "last", "kind"],
)
def test_evaluations_that_the_search_does_not_propose_are_refused_by_their_number(
    interrupted: RunDirectory, number: int, change: Callable[[dict[str, Any]], None]
) -> None:
    change_line(interrupted, number, change)
    recorded = lines_of(interrupted)
    with pytest.raises(RunError, match=rf"evaluation {number} of the run is .* cannot be resumed here"):
        train(resume=interrupted.root)
    assert lines_of(interrupted) == recorded
    assert not interrupted.summary.exists()


def test_a_damaged_evaluation_in_the_middle_is_refused_by_its_line(interrupted: RunDirectory) -> None:
    lines = lines_of(interrupted)
    interrupted.evaluations_file.write_bytes(b"".join([*lines[:7], b"not json\n", *lines[8:]]))
    with pytest.raises(RunError, match=r"evaluations\.jsonl', line 8 is damaged"):
        train(resume=interrupted.root)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda splits: {**splits, "reward": splits["reward"][::-1]}, "differs from the current split"),
        (lambda splits: {**splits, "train_images": 1}, "differs from the current split"),
    ],
    ids=["other order", "other data"],
)
def test_other_images_are_refused(
    interrupted: RunDirectory, damage: Callable[[dict[str, Any]], Any], words: str
) -> None:
    interrupted.write_json(interrupted.splits, damage(interrupted.read_json(interrupted.splits)))
    recorded = lines_of(interrupted)
    with pytest.raises(RunError, match=rf"splits\.json' {words}.*start a new run"):
        train(resume=interrupted.root)
    assert lines_of(interrupted) == recorded


def test_splits_that_are_missing_are_told_by_their_name(interrupted: RunDirectory) -> None:
    interrupted.splits.unlink()
    with pytest.raises(RunError, match=r"splits\.json' cannot be read"):
        train(resume=interrupted.root)


def test_evaluations_beyond_the_end_of_the_search_are_refused(
    finished: RunDirectory, interrupted: RunDirectory
) -> None:
    rows = [{**row, "number": number} for number, row in enumerate(3 * rows_of(finished))]
    interrupted.evaluations_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = {path: path.read_bytes() for path in (interrupted.evaluations_file, interrupted.plan)}
    words = rf"evaluations\.jsonl' has {3 * (EVALUATIONS + 1)} lines, but the search tries {EVALUATIONS + 1} plans"
    with pytest.raises(RunError, match=words):
        train(resume=interrupted.root)
    assert {path: path.read_bytes() for path in before} == before
    assert not interrupted.summary.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(macs=10**400), r"line 16 is damaged: macs: given 1000.*; must be less than"),
        (lambda row: row.update(accuracy=5), r"line 16 is damaged: accuracy: given 5; must be less than or equal to 1"),
        (lambda row: row.update(accuracy=True), r"line 16 is damaged: accuracy: given True; must be a valid number"),
        (lambda row: row.update(accuracy=1.0), r"evaluation 15 of the run has the reward .*, but its plan and"),
        (lambda row: row.update(reward=0.0), r"evaluation 15 of the run has the reward 0\.0, but its plan and"),
        (lambda row: row.update(macs=1), r"evaluation 15 of the run has the macs 1, but its plan and"),
    ],
    ids=["macs of 400 digits", "accuracy 5", "accuracy true", "accuracy", "reward", "macs"],
)
def test_evaluations_with_made_up_values_are_refused(
    interrupted: RunDirectory, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    change_line(interrupted, 15, change)
    with pytest.raises(RunError, match=words):
        train(resume=interrupted.root)


def test_an_evaluation_that_was_changed_is_refused_by_its_digest(interrupted: RunDirectory) -> None:
    lines = lines_of(interrupted)
    lines[15] = lines[15].replace(b'"cached": false', b'"cached": true')
    interrupted.evaluations_file.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=r"evaluations\.jsonl', line 16 is damaged or was changed: digest"):
        train(resume=interrupted.root)


def test_changed_scores_are_refused(interrupted: RunDirectory) -> None:
    with safe_open(interrupted.scores, "np") as file:
        header = file.metadata()
    negated = {unit: -scores for unit, scores in load_file(interrupted.scores).items()}
    interrupted.scores.write_bytes(save(negated, header))
    with pytest.raises(RunError, match=r"scores\.safetensors' is damaged or was changed"):
        train(resume=interrupted.root)


def searched(run: RunDirectory, problem: PruningProblem, settings: RunConfig) -> RunDirectory:
    search_into(SearchRun(run, settings, load_splits(settings), problem), watch_on_board)
    return run


def half_of(run: RunDirectory, root: Path) -> RunDirectory:
    half = RunDirectory.create(root)
    lines = lines_of(run)
    half.evaluations_file.write_bytes(b"".join(lines[: len(lines) // 2]))
    return half


@pytest.fixture(scope="module")
def problem(config: Path) -> PruningProblem:
    return load_problem(RunConfig.load(config))[1]


@pytest.mark.parametrize("name", SEARCHES.names())
def test_every_search_is_resumed_where_it_stopped(
    name: str, config: Path, problem: PruningProblem, tmp_path: Path
) -> None:
    settings = RunConfig.load(config, [f"agent.name={name}", *policy_for(name)])
    whole = searched(RunDirectory.create(tmp_path / "whole"), problem.again(), settings)
    resumed = searched(half_of(whole, tmp_path / "half"), problem.again(), settings)
    assert len(rows_of(whole)) > 1
    assert evaluations_of(resumed, "cached") == evaluations_of(whole, "cached")
    assert resumed.plan.read_bytes() == whole.plan.read_bytes()
    assert resumed.policy.is_file() == whole.policy.is_file()
    assert not whole.policy.is_file() or resumed.policy.read_bytes() == whole.policy.read_bytes()


def test_a_search_whose_plans_race_is_resumed_where_it_stopped(config: Path, tmp_path: Path) -> None:
    settings = RunConfig.load(config, ["search.racing=true", "execution.batch=8"])
    whole = searched(RunDirectory.create(tmp_path / "whole"), load_problem(settings)[1], settings)
    stopped_early = [row["images"] is not None for row in rows_of(whole)]
    middle = len(stopped_early) // 2
    assert any(stopped_early[:middle])
    assert any(stopped_early[middle:])
    resumed = searched(half_of(whole, tmp_path / "half"), load_problem(settings)[1], settings)
    assert evaluations_of(resumed) == evaluations_of(whole)
    assert resumed.plan.read_bytes() == whole.plan.read_bytes()
    assert resumed.policy.read_bytes() == whole.policy.read_bytes()


def test_a_run_with_workers_whose_driver_is_killed_goes_on_and_leaves_no_worker_behind(tmp_path: Path) -> None:
    """The result is that of one process, also where one process ends it, and no outcome of a worker is lost."""
    settings = digits_file(tmp_path, "search.evaluations=34", "search.lag=4")
    alone = RunDirectory(tmp_path / "alone")
    train(settings, [f"run.directory={alone.root}"])
    many = digits_file(tmp_path, "search.evaluations=34", "search.lag=4", "search.workers=2")
    run = RunDirectory(tmp_path / "run")
    wait_for_another_second(run)
    process = started(many, run, daemon=False)
    wait_for_lines(run, 24, process)
    workers = children_of(process.pid)
    process.kill()
    process.join()
    assert 24 <= len(lines_of(run)) < 35
    assert workers
    deadline = time.monotonic() + 30
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its driver"
        time.sleep(0.05)
    wait_for_another_second(run)
    train(Path("search.workers=1"), resume=run.root)
    assert not run.arrived.exists()
    found, expected = result_of(run), result_of(alone)
    assert [row["number"] for row in found["evaluations"]] == list(range(35))
    assert found == expected


def children_of(process: int | None) -> list[int]:
    """The processes below a process, by the kernel's list."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            number = int(status.parent.name)
            found += [number, *children_of(number)]
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
