"""The connection to a Ray cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prune_env.common.errors import ConfigError

KNOCK = 10.0
"""Seconds in which a head node must answer [our choice]."""


def check_address(address: str) -> None:
    """Refuses a cluster that is not there.

    Raises:
        ConfigError: As `connection`.
    """
    if address == "local":
        _ray(address)
    else:
        with connection(address):
            pass


def _ray(address: str) -> Any:
    """The module of Ray, which sends no usage statistics unless the user asks for it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"run.address: {address} given, but Ray is not installed. Run: pip install 'prune-env[ray]'"
        ) from None
    return ray


@contextmanager
def connection(address: str) -> Iterator[Any]:
    """The module of Ray, connected to a cluster; a connection that this process has already is used and stays open.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, ``local`` for a new one on this machine, or the
            address of a head node.

    Raises:
        ConfigError: If Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray(address)
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"run.address: there is no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, give "
            "the address of its head node as HOST:PORT, or give local for one on this machine."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray itself would try for many minutes."""
    # Ray takes auto from this variable where it is set, as in submitted jobs.
    known = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, colon, port = known.rpartition(":")
    if colon and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK).close()
