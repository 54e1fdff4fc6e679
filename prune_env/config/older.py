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

GONE = frozenset(
    f"fidelity.{key}"
    for key in (
        "batch_size",
        "warmup",
        "weight_decay",
        "label_smoothing",
        "average",
        "augment",
        "layout",
        "dtype",
        "threads",
    )
)
"""Keys of files of earlier releases that mean nothing today and are passed over."""


def without_gone(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the keys of `GONE`.

    Only files are read this way. A command line that gives such a key is refused.

    Args:
        document: Sections of keys; left as it is.
    """
    return {
        name: {key: value for key, value in part.items() if f"{name}.{key}" not in GONE}
        if isinstance(part, Mapping)
        else part
        for name, part in document.items()
    }


MOVED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "criterion.name": {
            name: f"benchmarks.control_criteria:{name}"
            for name in (
                "clusters_pca",
                "clusters_raw",
                "clusters_shared",
                "empirical_fisher",
                "hessian",
                "hessian_block",
                "lobs_diagonal",
            )
        }
    }
)
"""Today's value by yesterday's, by key."""

RENAMED_SECTIONS: Mapping[str, str] = MappingProxyType({"form": "execution"})
"""Today's section by yesterday's; the keys in it are the same."""


def with_new_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The document with today's keys and values in the place of yesterday's.

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
    for path, values in MOVED.items():
        section, _, key = path.partition(".")
        part = found.get(section)
        if isinstance(part, dict) and isinstance(value := part.get(key), str):
            part[key] = values.get(value, value)
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
