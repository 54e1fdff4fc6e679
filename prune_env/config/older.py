"""Keys of earlier releases: files and command lines that use them are still read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "env.granularity": "granularity.name",
        "env.action": "granularity.action",
        "env.max_groups": "granularity.max_groups",
        "env.only_faster_groups": "granularity.only_faster",
        "criterion.kernels": "granularity.kernels",
        "finetune.selectors": "granularity.selectors",
        "finetune.selector_penalty": "granularity.selector_penalty",
    }
)
"""Today's key by yesterday's. The new key wins where both are given."""


def renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with today's keys in the place of yesterday's.

    Args:
        document: Sections of keys; left as it is.
    """
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in document.items()}
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        if not isinstance(found.get(section), dict) or key not in found[section]:
            continue
        value = found[section].pop(key)
        into, _, name = new.partition(".")
        if found.get(into) is None:
            found[into] = {}
        if isinstance(found[into], dict):
            found[into].setdefault(name, value)
    return found
