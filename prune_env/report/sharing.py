"""What a report leaves out, because it is meant to be given away: folders and machines of whoever made the run."""

import re
import shlex
from typing import Any

import yaml

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_START = re.compile(
    rf"""{_SCHEME}                         # optuna:///home/me/x.db
    | (?<!\w) [A-Za-z]: [\\/]              # C:\Users\me
    | (?<![\w\\]) \\{{2,}} (?=\w)            # \\host\share, also where each backslash is doubled
    | (?<![\w~]) ~ (?=[A-Za-z\\/])         # ~/x, ~me/x
    | (?<![\w./~)\]%<]) / (?=[^\s/])       # /home/me
    | / (?=(?:home|Users)/)                # -I/home/me
    | (?<![\w.]) \.\. [\\/]                # ../../home/me
    """,
    re.VERBOSE,
)
# A path goes on to a quote, comma or bracket that ends something: folders may have any of them, and spaces, in a name.
_PATH = re.compile(rf"""(?:{_START.pattern}) (?:[^\n'",;:)\]}}>] | ['",;:)\]}}>](?=[\w/\\]))*""", re.VERBOSE)


def text_without_places(text: str) -> str:
    r"""Replaces the paths in a text that are absolute, or that climb out of their folder, by their last part.

    What follows a path in a sentence may be taken for a part of it: too much is left out rather than too little.

    Example:
        >>> text_without_places("optuna:///home/me/study.db")
        'optuna://.../study.db'
        >>> text_without_places(r"{weights: C:\Users\me\x.pt, seed: 3}")
        '{weights: .../x.pt, seed: 3}'
    """
    return _last(text) if _START.match(text) else _PATH.sub(lambda match: _last(match[0]), text)


def without_places(settings: str) -> str:
    """Replaces the paths in a ``config.yaml`` as `text_without_places`, and the address of a cluster.

    Args:
        settings: YAML, as a run records it, with comments above the first key.
    """
    lines = settings.splitlines(keepends=True)
    comments = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    document = _shared("", yaml.safe_load("".join(lines[comments:])))
    told = text_without_places("".join(lines[:comments]))
    return told + yaml.safe_dump(document, sort_keys=False, allow_unicode=False)


def command_without_places(command: str) -> str:
    """Replaces the paths in a command line, or in a call of `prune_env.prune`, as `without_places`.

    Example:
        >>> command_without_places("prune-env train /home/me/digits.yaml data.path=/data/mine seed=3")
        'prune-env train .../digits.yaml data.path=.../mine seed=3'
    """
    if command.startswith("prune_env.prune("):
        return text_without_places(command)
    try:
        words = shlex.split(command)
    except ValueError:  # a quote without its end: no command of ours
        words = command.split()
    return shlex.join(map(_word, words))


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or _START.match(word):
        return text_without_places(word)
    return f"{text_without_places(key)}={_shared(key, value)}"


def _shared(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {
            text_without_places(str(name)): _shared(f"{key}.{name}" if key else str(name), part)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_shared(key, part) for part in value]
    if not isinstance(value, str):
        return value
    if key == "run.address" and value not in ("auto", "local"):
        return "..."
    return text_without_places(value)


def _last(path: str) -> str:
    """The last part of a path, after its scheme; nothing of a path that names only a machine, a drive or a home."""
    found = re.match(_SCHEME, path)
    scheme = found[0] if found else ""
    parts = [part for part in re.split(r"[\\/]", path.removeprefix(scheme)) if part]
    if scheme == "optuna://" and len(parts) == 1:  # a file beside the run
        return f"{scheme}{'.../' if path.startswith(f'{scheme}/') else ''}{parts[0]}"
    if not parts or parts[-1].startswith(("~", "..")) or (len(parts) == 1 and (scheme or parts[0].endswith(":"))):
        return f"{scheme}..."
    return f"{scheme}.../{parts[-1]}"
