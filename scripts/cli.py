"""`prune-env`: all commands."""

from importlib.metadata import version
from typing import Annotated, ClassVar

import typer

from prune_env.commands.common import run_app
from prune_env.commands.lazy import LazyGroup


class Bench(LazyGroup):
    """The commands of `prune-env bench`."""

    modules: ClassVar = {"episode": "bench_episode", "rewards": "bench_rewards"}


class PruneEnv(LazyGroup):
    """The commands of `prune-env`, by the file of each."""

    modules: ClassVar = {
        "inspect": "inspect_walk",
        "train": "train",
        "replay": "replay",
        "finetune": "finetune",
        "evaluate": "evaluate",
        "export": "export",
        "pretrain": "pretrain",
        "compare": "compare",
        "report": "report",
        "configs": "configs",
        "list": "list_names",
    }


bench = typer.Typer(cls=Bench, no_args_is_help=True, help="Measures speed and reward quality on your network and data.")
app = typer.Typer(cls=PruneEnv, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(bench, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"prune-env {version('prune-env')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)]


@app.callback()
def prune_env(version: Version = False) -> None:
    """Prune CNNs with a learned policy. Each command takes a YAML file of settings and overrides key.path=value."""


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
