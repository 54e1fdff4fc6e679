"""The console: text is text. Nothing that it prints is taken for markup or for a command to the terminal."""

from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.status import Status
from rich.text import Text

from prune_env.common.text import printable


class TextConsole(Console):
    """A console that shows names as they are: ``[bold]`` stays, and control characters are shown as such.

    Names of modules, runs and files may come from anybody. Styles are given by ``style``.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(markup=False, emoji=False, **given)

    def render_str(self, text: str, **given: Any) -> Text:
        """Every text that is printed, also that of tables."""
        return super().render_str(printable(text), **given)

    def status(self, status: Any, **given: Any) -> Status:
        """A line of progress; an `update` shows text as text, too."""
        return _TextStatus(_as_text(status), console=self, **given)


class PlainColumn(TextColumn):
    """A column of a progress bar that shows text as text."""

    def render(self, task: Task) -> Text:
        """The column's text for a task."""
        return Text(printable(self.text_format.format(task=task)))


class _TextStatus(Status):
    def update(self, status: Any = None, **given: Any) -> None:
        super().update(_as_text(status), **given)


def _as_text(value: Any) -> Any:
    """Text without markup; rich takes text beside a spinner for markup, whatever the console says."""
    return Text(printable(value)) if isinstance(value, str) else value
