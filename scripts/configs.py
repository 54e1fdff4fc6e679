"""`prune-env configs`: the configuration files that come with the library."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import AsJson, print_json, print_names, results, run_command
from prune_env.commands.next_steps import print_next, with_config
from prune_env.common.errors import ConfigError, RunError, suggest
from prune_env.common.files import atomic_write
from prune_env.config.shipped import shipped_configs, summary

Name = Annotated[str | None, typer.Argument(help="The name of one, to print its file.", show_default=False)]
To = Annotated[
    Path | None, typer.Argument(help="A file that does not exist, to copy it to and change.", show_default=False)
]


def configs(name: Name = None, to: To = None, as_json: AsJson = False) -> None:
    """Lists the configurations that come with the library, prints one, or copies one.

    Every command takes such a name in place of a file: `prune-env train digits`.
    """
    known = shipped_configs()
    if name is None:
        lines = {each: summary(path) for each, path in known.items()}
        if as_json:
            print_json({"configs": [{"name": each, "summary": line} for each, line in lines.items()]})
        else:
            print_names(lines)
            print_next(with_config("NAME"))
        return
    if name not in known:
        raise ConfigError(f"NAME: no configuration {name!r} comes with the library; {suggest(name, known)}.")
    text = known[name].read_text(encoding="utf-8")
    if to is not None:
        _copy(text, to)
    if as_json:
        print_json({"name": name, "file": str(to or known[name]), "text": text})
        return
    if to is None:
        results.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)
    print_next(with_config(str(to or name)))


def _copy(text: str, to: Path) -> None:
    """Writes a file that does not exist.

    Raises:
        RunError: If it exists.
    """
    if to.exists():
        raise RunError(f"TO: {str(to)!r} exists already, and nothing is written over. Give another file.")
    atomic_write(to, text.encode())


if __name__ == "__main__":
    run_command(configs)
