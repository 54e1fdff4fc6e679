"""What is light in `prune-env`: the list of commands, versions, configurations by name, and what comes next."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import typer

from prune_env.commands import next_steps
from prune_env.commands.cli import Bench, PruneEnv, app
from prune_env.commands.train import OWN_EPOCHS

ROOT = Path(__file__).parents[2]
Cli = Callable[..., tuple[int, str, str]]

HEAVY = ("torch", "torchvision", "scipy", "sklearn", "matplotlib", "stable_baselines3", "optuna")


def parsed(words: list[str]) -> dict[str, object]:
    """The arguments of a command line, as `prune-env` reads them; nothing is run."""
    group = typer.main.get_command(app)
    context = group.make_context("prune-env", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return dict(command.make_context(name, rest, parent=context).params)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["bench", "--help"], ["configs"], ["configs", "digits"]])
def test_what_needs_no_network_imports_nothing_heavy(words: list[str]) -> None:
    told = (
        "import sys\n"
        "from prune_env.commands.cli import main\n"
        f"sys.argv = ['prune-env', *{words}]\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n"
        f"    print([name for name in {HEAVY} if name in sys.modules], stop.code, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] in ("[] 0", "[] None"), done.stderr
    assert done.stdout.strip()


def test_every_command_is_listed_with_the_first_line_of_its_own_help(cli: Cli) -> None:
    _, listed, _ = cli("--help")
    _, benches, _ = cli("bench", "--help")
    for group, text in ((PruneEnv, listed), (Bench, benches)):
        for name, module in group.modules.items():
            function = getattr(import_module(f"prune_env.commands.{module}"), module)
            first = (function.__doc__ or "").splitlines()[0]
            assert re.sub(r"[\s│]+", " ", f"{name} {first}") in re.sub(r"[\s│]+", " ", text)
    files = {file.stem for file in (ROOT / "scripts").glob("*.py") if "run_command(" in file.read_text()}
    assert files - {"common"} == {*PruneEnv.modules.values()}


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version") == (0, "prune-env 0.1.0\n", "")


def test_the_nearest_command_is_offered(cli: Cli) -> None:
    code, _, err = cli("finetun")
    assert code == 2
    assert "Did you mean 'finetune'" in err


def test_configurations_are_listed_printed_and_copied_but_never_written_over(cli: Cli) -> None:
    code, out, err = cli("configs")
    assert code == 0
    assert re.search(r"^digits +The built-in example: a small residual CNN on", out, flags=re.MULTILINE)
    assert "prune-env train NAME --finetune" in err
    text = (ROOT / "configs" / "digits.yaml").read_text()
    assert cli("configs", "digits")[1] == text
    assert cli("configs", "digits", "mine.yaml")[:2] == (0, "")
    assert Path("mine.yaml").read_text() == text
    code, _, err = cli("configs", "cifar10_resnet20", "mine.yaml")
    assert (code, Path("mine.yaml").read_text()) == (2, text)
    assert "'mine.yaml' exists already" in err
    assert "did you mean 'digits'" in cli("configs", "digit")[2]
    record = json.loads(cli("configs", "--json")[1])
    assert {row["name"] for row in record["configs"]} == {path.stem for path in (ROOT / "configs").iterdir()}


@pytest.mark.parametrize(
    ("words", "epochs", "overrides"),
    [
        (["train", "digits"], None, []),
        (["train", "digits", "--finetune"], int(OWN_EPOCHS), []),
        (["train", "--finetune", "digits"], int(OWN_EPOCHS), []),
        (["train", "digits", "--finetune", "12", "seed=1"], 12, ["seed=1"]),
        (["train", "digits", "--finetune", "seed=1", "--json"], int(OWN_EPOCHS), ["seed=1"]),
        (["train", "digits", "--finetune=3"], 3, []),
    ],
)
def test_finetune_takes_a_number_of_epochs_or_none(words: list[str], epochs: int | None, overrides: list[str]) -> None:
    found = parsed(words)
    assert (str(found["config"]), found["finetune"], list(found["overrides"] or ())) == ("digits", epochs, overrides)


def test_every_command_that_is_offered_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with spaces in paths and in values."""
    root, given = tmp_path / "my run", ("env.protect.conv1=it stays",)
    offered = [
        *next_steps.with_config("my net.yaml", given),
        *next_steps.with_weights("digits", root / "weights.safetensors"),
        *next_steps.with_name("criterion.name"),
        *next_steps.with_comparison(root, "ddpg", "digits", given),
        *next_steps.with_run(root),
        *next_steps.with_replay(root / "policy.safetensors", "digits", given),
    ]
    (root / "finetune").mkdir(parents=True)
    for name in ("config.yaml", "finetune/config.yaml"):
        (root / name).touch()
    offered += next_steps.with_run(root, "train")
    told = [
        next_steps.after_interrupted_search(root),
        next_steps.after_interrupted_finetuning(root, "finetune"),
        next_steps.after_interrupted_finetuning(root, "another try"),
        next_steps.after_interrupted_pretraining(root),
    ]
    commands = [command for command, _ in offered] + [words.splitlines()[-1].strip() for words in told]
    assert len(commands) > 15
    for command in commands:
        program, *words = shlex.split(command)
        assert program in ("prune-env", "tensorboard")
        if program == "prune-env":
            parsed(words)
    next_steps.print_next(offered)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Next:"
    assert [line.split("  # ")[0].strip() for line in lines[1:]] == [command for command, _ in offered]


def test_what_a_run_has_is_not_offered_again(tmp_path: Path) -> None:
    def offered(done: str = "") -> str:
        return "\n".join(command for command, _ in next_steps.with_run(tmp_path, done))

    assert f"finetune {tmp_path}" in offered()
    (tmp_path / "finetune").mkdir()
    assert f"finetune {tmp_path} --resume" in offered()
    (tmp_path / "finetune" / "summary.json").touch()
    assert "finetune" not in offered()
    assert "export" in offered()
    for target in ("onnx", "torch-export"):
        (tmp_path / f"export-{target}").mkdir()
    assert "export" not in offered()
    assert "evaluate" in offered("export")
    assert offered("evaluate") == ""


def test_every_command_ends_with_what_comes_next() -> None:
    for name in PruneEnv.modules.values():
        tree = ast.parse((ROOT / "scripts" / f"{name}.py").read_text())
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print_next" in called, name


@pytest.mark.slow
def test_gymnasium_finds_the_environment_with_or_without_an_import() -> None:
    made = "gymnasium.make({!r}, config='digits', disable_env_checker=True)"
    for before, name in (("import prune_env", "prune_env/Pruning-v0"), ("", "prune_env:prune_env/Pruning-v0")):
        told = (
            f"{before}\nimport gymnasium\nfrom unittest import mock\n"
            "with mock.patch('prune_env.env.pruning_env.load_splits', side_effect=InterruptedError):\n"
            f"    try:\n        {made.format(name)}\n    except InterruptedError:\n        print('found')\n"
        )
        done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout == "found\n", done.stderr


@pytest.mark.parametrize(
    "typed",
    [["x" * 20_000], ["inspect", "digits", f"--{'x' * 20_000}"], ["list", "models", "a", "x" * 20_000]],
    ids=["a command", "an option", "an argument"],
)
def test_what_was_typed_is_repeated_in_no_more_than_one_screen(typed: list[str], refused: Callable[..., str]) -> None:
    said = refused(*typed)
    assert "xxx..." in said
    assert len(said) < 1000
