"""The wheel, installed where nothing else of the repository is, and the files that describe a release."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINKED = {"agents": "agents", "rewards": "rewards", "commands": "scripts", "configs": "configs"}
"""Parts of the package by name, with the folders that they are links to."""

TINY = (
    *("data.reward_images=40", "data.calibration_images=40", "data.test_images=20"),
    *("pretrain.epochs=1", "search.evaluations=14", "run.force=true"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the sources, so that the build leaves nothing behind."""
    source, built = tmp_path_factory.mktemp("source") / "repository", tmp_path_factory.mktemp("built")
    folders = ("prune_env", "agents", "rewards", "scripts", "configs", "tests", "benchmarks")
    source.mkdir()
    for folder in folders:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    command = ("wheel", *quiet, "--no-build-isolation", "--wheel-dir", built, source)
    subprocess.run([sys.executable, "-m", "pip", *map(str, command)], check=True, capture_output=True)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files alone in a folder; its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("site")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    command = ("install", *quiet, "--no-compile", "--target", folder, wheel)
    subprocess.run([sys.executable, "-m", "pip", *map(str, command)], check=True, capture_output=True)
    return folder


def environment(site: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone_and_all_of_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    inside = {name for name in names if not name.startswith("prune_env-")}
    expected = {
        f"prune_env/{file.relative_to(ROOT / 'prune_env')}"
        for file in (ROOT / "prune_env").rglob("*")
        if file.is_file()
        and file.suffix in (".py", ".html", ".css", ".js", ".typed")
        and "__pycache__" not in file.parts
    }
    for part, folder in LINKED.items():
        files = [file for file in (ROOT / folder).iterdir() if file.suffix in (".py", ".yaml")]
        assert files
        expected |= {f"prune_env/{part}/{file.name}" for file in files}
    assert inside == expected | {"prune_env/py.typed"}


@pytest.mark.slow
def test_an_installed_wheel_runs_beside_folders_of_the_same_names(site: Path, tmp_path: Path) -> None:
    """A user's own scripts/, agents/, rewards/ and configs/ are neither imported nor in the way."""
    for name in ("scripts", "agents", "rewards", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),\n"
        "        nn.Conv2d(12, 20, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(20, 10))\n"
    )

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment(site), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = "import prune_env, prune_env.commands, prune_env.agents as a; print(prune_env.__file__, a.__file__)"
    assert run("-c", told).split() == [str(site / "prune_env" / name) for name in ("__init__.py", "agents/__init__.py")]
    program = str(site / "bin" / "prune-env")
    assert run(program, "--version") == f"prune-env {PROJECT['version']}\n"
    assert "digits" in run(program, "configs")
    run(program, "train", "digits", "model.name=my_net:build", *TINY, "--finetune", "1", "--json")
    assert (tmp_path / "runs" / "digits" / "finetune" / "weights.safetensors").is_file()
    assert (tmp_path / "runs" / "digits" / "report.html").is_file()


def test_the_parts_of_the_package_are_links_to_the_folders_at_the_top() -> None:
    for part, folder in LINKED.items():
        link = ROOT / "prune_env" / part
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


def test_files_about_the_release_agree_with_its_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]
