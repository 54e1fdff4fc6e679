"""The console shows names as they are: no markup, no command to the terminal, on any console."""

from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.progress import Progress
from rich.table import Table

from prune_env.commands.console import PlainColumn, TextConsole

HOSTILE = "[/b] [docs] [bold]x[/bold] :bomb: [link=http://a.b]\x1b[2J\x1b]0;owned\x07\u202e"
SHOWN = "[/b] [docs] [bold]x[/bold] :bomb: [link=http://a.b]\\x1b[2J\\x1b]0;owned\\x07\\u202e"


@pytest.fixture
def console() -> TextConsole:
    return TextConsole(file=StringIO(), width=200, color_system=None, force_terminal=True, highlight=False)


def said(console: TextConsole) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_line_is_text(console: TextConsole) -> None:
    console.print(f"weights {HOSTILE}", soft_wrap=True)
    console.print(HOSTILE, style="yellow")
    assert said(console) == f"weights {SHOWN}\n{SHOWN}\n"


def test_titles_headings_and_cells_of_a_table_are_text(console: TextConsole) -> None:
    table = Table(title=f"title {HOSTILE}")
    table.add_column(f"heading {HOSTILE}")
    table.add_row(f"cell {HOSTILE}")
    console.print(table)
    for place in ("title", "heading", "cell"):
        assert f"{place} {SHOWN}" in said(console)
    assert "\x1b" not in said(console)


def test_progress_is_text(console: TextConsole) -> None:
    with console.status(f"first {HOSTILE}") as status:
        status.update(f"second {HOSTILE}")
    with Progress(PlainColumn("{task.description}"), console=console) as progress:
        progress.add_task(f"third {HOSTILE}", total=1)
    assert f"second {SHOWN}" in said(console)
    assert f"third {SHOWN}" in said(console)


def test_a_narrow_encoding_shows_escapes() -> None:
    stream = TextIOWrapper(BytesIO(), encoding="latin-1", errors="backslashreplace")
    TextConsole(file=stream, width=80).print("größer 层1 ▂▄")
    stream.flush()
    assert stream.buffer.getvalue() == "größer ".encode("latin-1") + b"\\u5c421 \\u2582\\u2584\n"
