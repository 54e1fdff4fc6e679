"""Versions of Python and of the packages that results depend on."""

import importlib.metadata
import platform

_PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "prune-env")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a run's results depend on."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed
