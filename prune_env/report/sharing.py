"""What a report leaves out, because it is meant to be given away: folders and machines of whoever made the run."""

import re
import shlex
from pathlib import PurePath
from typing import Any

import yaml

_ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[\\/]")


def without_places(settings: str) -> str:
    """Replaces absolute paths in the text of a ``config.yaml`` by their last part, and the address of a cluster.

    Args:
        settings: YAML, as a run records it, with comments above the first key.
    """
    lines = settings.splitlines(keepends=True)
    comments = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    document = _shared("", yaml.safe_load("".join(lines[comments:])))
    return "".join(lines[:comments]) + yaml.safe_dump(document, sort_keys=False, allow_unicode=False)


def command_without_places(command: str) -> str:
    """Replaces absolute paths in a command line as `without_places`; a call of `prune_env.prune` names none.

    Example:
        >>> command_without_places("prune-env train /home/me/digits.yaml data.path=/data/mine seed=3")
        'prune-env train .../digits.yaml data.path=.../mine seed=3'
    """
    if command.startswith("prune_env.prune("):
        return command
    try:
        words = shlex.split(command)
    except ValueError:  # a quote without its end: no command of ours
        words = command.split()
    shown = []
    for word in words:
        key, equals, value = word.partition("=")
        shown.append(f"{key}={_shared(key, value)}" if equals else _shared("", word))
    return shlex.join(shown)


def _shared(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shared(f"{key}.{name}" if key else str(name), part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shared(key, part) for part in value]
    if not isinstance(value, str):
        return value
    if key == "run.address" and value not in ("auto", "local"):
        return "..."
    return f".../{PurePath(value).name}" if _ABSOLUTE.match(value) else value
