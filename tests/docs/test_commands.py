"""Every command of the documentation exists, takes its options, and names settings that exist; short ones run."""

import importlib.util
import re
import shutil
import subprocess
import sys

import click
import pytest
import typer.main
from documents import PAGES, ROOT, blocks, commands, inline_commands

from prune_env import RunConfig
from prune_env.commands.cli import app
from prune_env.commands.lazy import LazyCommand, command_of
from prune_env.common.errors import ConfigError
from prune_env.config.granularity import GRANULARITIES

CLI = typer.main.get_command(app)

PLACES = {"CONFIG": "configs/digits.yaml", "CONFIG.yaml": "configs/digits.yaml"}
"""What a placeholder may stand for."""

OTHERS = ("tensorboard", "optuna-dashboard", "pip", "make", "ray", "srun", "export", ".", "python", "accelerate")

LONG = ("long", "once", "as long as you like")
"""How the title of a block begins whose commands no test runs."""

RUN = ("tutorial.md", "how_to.md")
"""The pages whose other blocks a test runs, in their order."""

WRITTEN = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)[:70]}")
    for page in PAGES
    for words in [
        *(words for block in blocks(page) if block.language == "sh" for words in commands(block.text)),
        *inline_commands(page),
    ]
]


@pytest.mark.parametrize("words", WRITTEN)
def test_a_command_exists_with_its_options_and_its_settings(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PRUNE_ENV_DATA", "data")
    monkeypatch.setenv("PRUNE_ENV_WEIGHTS", "weights")
    words = words[words.index("prune-env") :] if "prune-env" in words else words
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] != "prune-env":
        assert words[0] in OTHERS
    else:
        _check(words[1:])


def _check(words: list[str]) -> None:
    """Parses a `prune-env` command without running it, and reads its settings."""
    if not words or words == ["--help"]:
        return
    words = [PLACES.get(word, word) for word in words]
    # A text may name a command, or a command with some of its options: what is there must be right.
    command, rest = CLI, words
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        assert rest[0] in command.commands, f"there is no command {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
        if isinstance(command, LazyCommand):
            command = command_of(command.module)
        if not rest:
            return
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known
    configs = [word for word in rest if word.startswith("configs/")]
    assert all((ROOT / config).is_file() for config in configs)
    overrides = [word for word in rest if re.match(r"[a-z_]+\.[a-z_.]+=", word) or re.match(r"seed=", word)]
    overrides = [word for word in overrides if not re.search(r"=(?:\.\.\.|[A-Z]+\b|\[)", word)]
    if configs:
        RunConfig.load(ROOT / configs[0], overrides)
        return
    # The command is about a run, whose granularity may be any.
    refused = []
    for granularity in GRANULARITIES:
        try:
            RunConfig.load(ROOT / PLACES["CONFIG"], [f"granularity.name={granularity}", *overrides])
            return
        except ConfigError as error:
            refused.append(str(error))
    raise AssertionError(refused[0])


def test_what_no_test_runs_is_marked():
    unmarked = [
        f"{page.name}: {block.text.splitlines()[0]}"
        for page in PAGES
        if page.name not in RUN
        for block in blocks(page)
        if block.language == "sh" and not block.title.startswith(LONG)
    ]
    assert unmarked == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run_one_after_the_other(name, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "MPLBACKEND": "agg"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    ran = 0
    for block in blocks(ROOT / "docs" / name):
        if block.title.startswith(LONG):
            continue
        if block.title.endswith(".py"):
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "python":
            subprocess.run([sys.executable, "-c", block.text], cwd=tmp_path, check=True)
            ran += 1
        elif block.language == "sh":
            for words in commands(block.text):
                assert words[0] == "prune-env"
                words = [sys.executable, "-m", "prune_env.commands.cli", *words[1:]]
                done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                ran += 1
    assert ran > 5
