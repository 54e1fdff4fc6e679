"""Commands that are given a run import none of the code that it names, unless the user says so."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMANDS = {
    "evaluate": ["evaluate", "RUN"],
    "export": ["export", "RUN"],
    "report": ["report", "RUN"],
    "report of several": ["report", "RUN", "RUN/training", "--to", "RUN/page.html"],
    "finetune": ["finetune", "RUN"],
    "finetune --resume": ["finetune", "RUN", "--name", "training", "--resume"],
    "train --resume": ["train", "--resume", "RUN/training"],
    "pretrain --resume": ["pretrain", "--resume", "RUN/training"],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of somebody else whose settings name the module ``hostile_task``, which leaves a mark when imported."""
    (tmp_path / "hostile_task.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nbuild = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_task", raising=False)
    training = tmp_path / "run" / "training"
    training.mkdir(parents=True)
    settings = "model: {name: digits_resnet}\ndata: {name: digits}\ntask: {name: 'hostile_task:build'}\n"
    for folder in (training, training.parent):
        (folder / "config.yaml").write_text(settings)
        (folder / "plan.json").write_text("{}")
    (training.parent / "summary.json").write_text("{}")
    return tmp_path / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_s_code_is_refused_and_with_trust_imported(command: str, run: Path, refused: Callable[..., str]) -> None:
    mark = run.parent / "mark"
    words = [word.replace("RUN", str(run)) for word in COMMANDS[command]]
    said = refused(*words)
    assert "task.name: 'hostile_task:build' imports and calls Python code" in said
    assert "give --trust" in said
    assert not mark.exists()
    assert "must be a class like prune_env.tasks.Task" in refused(*words, "--trust")
    assert mark.exists()


def test_the_same_name_on_the_command_line_is_trust(run: Path, refused: Callable[..., str]) -> None:
    said = refused("evaluate", run, "task.name=hostile_task:build")
    assert "must be a class like prune_env.tasks.Task" in said


def test_the_file_that_the_user_gives_is_trusted_and_so_is_its_name_in_the_run(
    run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"model: {{name: 'hostile_task:build'}}\ndata: {{name: digits}}\nrun: {{directory: {run}}}\n")
    (run / "config.yaml").write_text("model: {name: 'hostile_task:build'}\ndata: {name: digits}\n")
    assert "is not a plan" in refused("evaluate", own)


@pytest.mark.parametrize("command", [["finetune"], ["finetune", "--resume"], ["evaluate"], ["export"]])
def test_no_name_of_a_training_leads_out_of_the_run(command: list[str], run: Path, refused: Callable[..., str]) -> None:
    (run / "config.yaml").write_text("model: {name: digits_resnet}\ndata: {name: digits}\n")
    said = refused(command[0], run, "--name", "../../x", *command[1:])
    assert "--name: '../../x' given; allowed is the name of a folder within the run" in said


def test_no_command_looks_for_modules_in_the_working_directory_by_itself(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert cli("list", "criteria")[0] == 0
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["replay", "RUN", "digits"], "plan.json is not a plan"),
        (["train", "digits", "agent.name=replay", "agent.policy=RUN"], "plan.json is not a plan"),
        (["train", "digits", "agent.policy=RUN"], "There is no policy at"),
    ],
    ids=["replay", "a search that replays", "a search that starts from a policy"],
)
def test_of_a_run_that_is_replayed_only_the_plan_is_read(
    command: list[str], told: str, run: Path, refused: Callable[..., str]
) -> None:
    said = refused(*(word.replace("RUN", str(run)) for word in command))
    assert told in said
    # Nothing was loaded, trained or measured before.
    assert "training the dense network" not in said
    assert not (run.parent / "mark").exists()
