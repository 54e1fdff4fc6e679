"""Keys of earlier releases: files and command lines that use them are still read."""

from collections.abc import Collection, Mapping
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
"""Today's key by yesterday's."""

RENAMED_SECTIONS: Mapping[str, str] = MappingProxyType({"form": "execution"})
"""Today's section by yesterday's; the keys in it are the same."""


def with_new_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The document with today's keys in the place of yesterday's.

    Args:
        document: Sections of keys; left as it is.

    Returns:
        A new document, and the new keys that were given by their old name.
    """
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in document.items()}
    for old, new in RENAMED_SECTIONS.items():
        if old in found:
            earlier, today = found.pop(old), found.get(new)
            found[new] = today or earlier
            if isinstance(earlier, dict) and isinstance(today, dict):
                found[new] = {**earlier, **today}
    moved = set()
    for old, new in RENAMED.items():
        (section, _, key), (into, _, name) = old.partition("."), new.partition(".")
        if not isinstance(found.get(section), dict) or key not in found[section]:
            continue
        value = found[section].pop(key)
        if found.get(into) is None:
            found[into] = {}
        if isinstance(found[into], dict):
            found[into][name] = value
            moved.add(new)
    return found, moved


def with_new_section(override: str) -> str:
    """An override ``key.path=value`` with today's section in the place of yesterday's."""
    path, equals, value = override.partition("=")
    section, dot, key = path.strip().partition(".")
    return f"{RENAMED_SECTIONS[section]}{dot}{key}{equals}{value}" if section in RENAMED_SECTIONS else override


def without_inert(
    section: Mapping[str, Any], path: str, moved: Collection[str], known: Collection[str]
) -> dict[str, Any]:
    """A section without keys that an earlier release recorded although they meant nothing there.

    What is switched on stays, so that it is refused rather than passed over.

    Args:
        section: Keys and values.
        path: The section's name.
        moved: As `with_new_names` gives them.
        known: The keys that the section has.
    """
    return {
        key: value for key, value in section.items() if key in known or f"{path}.{key}" not in moved or value is True
    }
