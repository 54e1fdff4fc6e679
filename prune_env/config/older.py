"""Keys of earlier releases, which files and command lines may still use."""

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
"""New key by old key."""

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
"""Keys in files of earlier releases that have no meaning now and are ignored."""


def without_gone(document: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the keys of `GONE` from a document.

    Only for files: on the command line, such a key is an error.

    Args:
        document: Sections of keys; not changed.
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
"""New value by old value, for each key."""

RENAMED_SECTIONS: Mapping[str, str] = MappingProxyType({"form": "execution"})
"""New section by old section; the keys in the section are the same."""


def with_new_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Replaces old keys and values in a document by the new ones.

    Args:
        document: Sections of keys; not changed.

    Returns:
        A new document, and the new names of the keys that were given by their old names.
    """
    renamed = {name: dict(part) if isinstance(part, Mapping) else part for name, part in document.items()}
    for old, new in RENAMED_SECTIONS.items():
        if old in renamed:
            earlier, current = renamed.pop(old), renamed.get(new)
            renamed[new] = current or earlier
            if isinstance(earlier, dict) and isinstance(current, dict):
                renamed[new] = {**earlier, **current}
    moved = set()
    for old, new in RENAMED.items():
        (section, _, key), (into, _, name) = old.partition("."), new.partition(".")
        if not isinstance(renamed.get(section), dict) or key not in renamed[section]:
            continue
        value = renamed[section].pop(key)
        if renamed.get(into) is None:
            renamed[into] = {}
        if isinstance(renamed[into], dict):
            renamed[into][name] = value
            moved.add(new)
    for path, values in MOVED.items():
        section, _, key = path.partition(".")
        part = renamed.get(section)
        if isinstance(part, dict) and isinstance(value := part.get(key), str):
            part[key] = values.get(value, value)
    return renamed, moved


def with_new_section(override: str) -> str:
    """Replaces an old section in an override ``key.path=value`` by the new one."""
    path, equals, value = override.partition("=")
    section, dot, key = path.strip().partition(".")
    return f"{RENAMED_SECTIONS[section]}{dot}{key}{equals}{value}" if section in RENAMED_SECTIONS else override


def path_with_new_names(path: tuple[str, ...]) -> tuple[str, ...]:
    """Replaces an old key by the new one in the keys of an override."""
    renamed = RENAMED.get(".".join(path[:2]))
    return path if renamed is None else (*renamed.split("."), *path[2:])


def without_inert(
    section: Mapping[str, Any], path: str, moved: Collection[str], known: Collection[str]
) -> dict[str, Any]:
    """Removes keys that an earlier release recorded although they had no effect.

    A key with the value true stays, so that it is refused instead of ignored.

    Args:
        section: Keys and values.
        path: The section's name.
        moved: The second result of `with_new_names`.
        known: The section's keys.
    """
    return {
        key: value for key, value in section.items() if key in known or f"{path}.{key}" not in moved or value is True
    }
