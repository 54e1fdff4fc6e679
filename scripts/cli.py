"""`prune-env`: all commands."""

import typer

from scripts.bench import bench
from scripts.common import run_app
from scripts.compare import compare
from scripts.evaluate import evaluate
from scripts.export import export
from scripts.finetune import finetune
from scripts.inspect_walk import inspect_walk
from scripts.list_names import list_names
from scripts.pretrain import pretrain
from scripts.replay import replay
from scripts.report import report
from scripts.train import train

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
