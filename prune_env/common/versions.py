"""The versions that numbers depend on."""

import importlib.metadata
import platform

_PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "prune-env")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
