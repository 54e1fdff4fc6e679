"""`prune-env`: all commands."""

import typer

from prune_env.commands.bench import bench
from prune_env.commands.common import run_app
from prune_env.commands.compare import compare
from prune_env.commands.evaluate import evaluate
from prune_env.commands.export import export
from prune_env.commands.finetune import finetune
from prune_env.commands.inspect_walk import inspect_walk
from prune_env.commands.list_names import list_names
from prune_env.commands.pretrain import pretrain
from prune_env.commands.replay import replay
from prune_env.commands.report import report
from prune_env.commands.train import train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prune CNNs with a learned policy. Each command takes a YAML file of settings and overrides key.path=value.",
)
app.command("inspect")(inspect_walk)
app.command("train")(train)
app.command("replay")(replay)
app.command("finetune")(finetune)
app.command("evaluate")(evaluate)
app.command("export")(export)
app.command("pretrain")(pretrain)
app.command("compare")(compare)
app.command("report")(report)
app.command("list")(list_names)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
