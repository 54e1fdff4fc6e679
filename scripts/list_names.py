"""`prune-env list`: the names that a configuration can give, each with a line that says what it is."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from prune_env.commands.common import AsJson, print_json, print_names, run_command
from prune_env.commands.next_steps import print_next, with_name
from prune_env.common.errors import ConfigError, suggest
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.task import TASKS
from prune_env.criteria import CRITERIA
from prune_env.data.registry import SOURCES
from prune_env.models import detector_summaries, model_summaries
from prune_env.recover.penalties import PENALTIES
from prune_env.repair import REPAIRS
from prune_env.rewards import reward_summaries
from prune_env.search import SEARCHES

Summaries = Callable[[], Mapping[str, str]]
"""Gives a line for each name."""

KINDS: Mapping[str, Summaries] = {
    "models": model_summaries,
    "detectors": detector_summaries,
    "data": SOURCES.summaries,
    "criteria": CRITERIA.summaries,
    "rewards": reward_summaries,
    "searches": SEARCHES.summaries,
    "granularities": GRANULARITIES.summaries,
    "tasks": TASKS.summaries,
    "repairs": REPAIRS.summaries,
    "penalties": PENALTIES.summaries,
}
"""What can be listed; a new registry is one line here."""

SETTINGS: Mapping[str, str] = {
    "models": "model.name",
    "detectors": "task.name=detection model.name",
    "data": "data.name",
    "criteria": "criterion.name",
    "rewards": "reward.name",
    "searches": "agent.name",
    "granularities": "granularity.name",
    "tasks": "task.name",
    "repairs": "repair.name",
    "penalties": "sparsify.penalty",
}
"""The setting that takes a name of each kind."""

Kind = Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")]
Pattern = Annotated[str, typer.Argument(help="Only names that match, in any case: * is any text, ? any letter.")]


def list_names(kind: Kind, pattern: Pattern = "*", as_json: AsJson = False) -> None:
    """Lists the names of models, criteria, searches and others, each with a line that says what it is."""
    if kind not in KINDS:
        raise ConfigError(f"KIND: there is no kind {kind!r}; {suggest(kind, KINDS)}.")
    known = KINDS[kind]()
    found = {name: line.replace("`", "") for name, line in known.items() if fnmatchcase(name.lower(), pattern.lower())}
    if not found:
        raise ConfigError(
            f"PATTERN: no {kind} match {pattern!r}; {suggest(pattern, known)}. Write '*{pattern.strip('*')}*' for all "
            "names that hold a text."
        )
    if as_json:
        print_json({"kind": kind, "names": [{"name": name, "summary": line} for name, line in found.items()]})
        return
    print_names(found)
    print_next(with_name(SETTINGS[kind]))


if __name__ == "__main__":
    run_command(list_names)
