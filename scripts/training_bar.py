"""The progress bar of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TimeRemainingColumn

from prune_env.commands.common import console
from prune_env.commands.console import PlainColumn
from prune_env.recover import Epoch
from prune_env.runs.training import Step, TrainingListener
from prune_env.tasks import Metric


@contextmanager
def shown_training() -> Iterator[TrainingListener]:
    """Yields a listener that shows a training on the console from its first event on."""
    columns = (
        PlainColumn("{task.description}"),
        BarColumn(),
        PlainColumn("loss {task.fields[loss]}, {task.fields[quality]}, waiting {task.fields[waiting]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console)
    bar: TaskID | None = None

    def update(**fields: str | int) -> None:
        nonlocal bar
        if bar is None:
            # Start late: with several processes, only the first one receives events and shows a bar.
            progress.start()
            bar = progress.add_task("", total=None, loss="-", quality="-", waiting="-")
        progress.update(bar, **fields)  # type: ignore[arg-type]

    def on_step(step: Step) -> None:
        update(description=f"epoch {step.epoch}, {step.done}/{step.of} steps", completed=step.done, total=step.of)

    def on_epoch(epoch: Epoch, metric: Metric) -> None:
        quality = f"{metric.name} {epoch.quality:{metric.format}}"
        update(loss=f"{epoch.loss:.4f}", quality=quality, waiting=f"{epoch.waiting:.1%}")

    try:
        yield TrainingListener(lambda words: update(description=words), on_step, on_epoch)
    finally:
        if bar is not None:
            progress.stop()
