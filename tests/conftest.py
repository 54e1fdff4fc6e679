"""What all tests share: one torch thread, a cache of their own, and the folders of real images and weights."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Tests run in several processes; more threads in one process would slow down the others."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the commands that they start never touch the user's own cache.

    They start with a copy of the script of the charts, which takes seconds to make.
    """
    cache = tmp_path_factory.mktemp("cache")
    script = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prune_env" / "report"
    if script.is_dir():
        shutil.copytree(script, cache / "prune_env" / "report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture
def same_global_state() -> Iterator[None]:
    """The test must leave the states of the global random generators unchanged."""
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    yield
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cifar10.npz``, unpacked once where there is none; use it in tests marked ``shared``."""
    folder = _folder("PRUNE_ENV_DATA", "CIFAR-10 images")
    if (folder / "cifar10.npz").is_file():
        return folder
    script = folder / "unpack.py"
    if not script.is_file():
        pytest.skip(f"neither cifar10.npz nor unpack.py, which makes it, is in {folder}")
    unpacked = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, script, unpacked / "cifar10.npz"], check=True, capture_output=True)
    return unpacked


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder that holds ``cifar10-resnet*.safetensors``; use it in tests marked ``shared``."""
    return _folder("PRUNE_ENV_WEIGHTS", "CIFAR-10 ResNet weights")


def _folder(variable: str, content: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} is not set; name the folder of the {content} with it")
    if not Path(named).is_dir():
        pytest.skip(f"{variable} names {named}, which is no folder; name the folder of the {content}")
    return Path(named)
