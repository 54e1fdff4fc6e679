"""Tables for consoles of any width."""

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

UNLIMITED = 10_000
"""A width in columns that no table needs."""


def plain_table(title: str, *, close: bool = False) -> Table:
    """An empty table as all commands print them; ``close`` leaves little room between its columns."""
    return Table(title=title, box=SIMPLE, title_justify="left", pad_edge=False, collapse_padding=close)


class FirstThatFits:
    """Shows the first of several tables that fits the console's width; the last one where none does.

    A table fits if no word in it has to be broken, and no cell of a column that must not wrap. A column that wraps gets
    its ``min_width`` at least.

    Args:
        tables: The tables, from the widest to the narrowest.
    """

    def __init__(self, *tables: Table) -> None:
        self.tables = tables
        for column in (column for table in tables for column in table.columns if column.no_wrap):
            column.min_width = _width(column)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Chooses when the table is printed, because only then the width is known."""
        free = options.update(max_width=UNLIMITED)
        fitting = (one for one in self.tables if Measurement.get(console, free, one).minimum <= options.max_width)
        yield next(fitting, self.tables[-1])


def _width(column: Column) -> int:
    """The widest line of a column."""
    return max(cell_len(line) for text in (column.header, *column.cells) for line in str(text).splitlines() or [""])
