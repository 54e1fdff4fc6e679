"""The report's page: a Jinja template that escapes every text, and the pieces that fill it."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Bar:
    """A table cell: a bar that fills ``share`` in [0, 1] of it."""

    share: float

    @property
    def width(self) -> str:
        """The share in CSS."""
        return f"{self.share:.1%}"


@dataclass(frozen=True)
class Bins:
    """A table cell: a histogram as tiny bars, the highest as high as the cell."""

    counts: Sequence[int]

    @property
    def heights(self) -> list[str]:
        """The bars' heights in CSS."""
        most = max([*self.counts, 1])
        return [f"{count / most:.0%}" for count in self.counts]

    @property
    def text(self) -> str:
        """The counts in words."""
        return " ".join(map(str, self.counts))


Cell = str | Bar | Bins
"""What a table holds; plain text is escaped."""


@dataclass(frozen=True)
class HtmlTable:
    """A table.

    Attributes:
        headings: Plain texts.
        rows: Plain texts, bars or histograms.
        right: Columns of numbers, which stand at the right.
        chosen: The first cell of the row that stands out.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Collection[int] = ()
    chosen: str | None = None


@dataclass(frozen=True)
class Picture:
    """A PNG in the page itself, with a plain caption; on a narrow screen it scrolls sideways."""

    png: bytes = field(repr=False)
    caption: str

    @property
    def data(self) -> str:
        """The bytes in base 64."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A heading, plain words below it (none where they are empty), and a table."""

    title: str
    words: str
    table: HtmlTable


def render(**parts: object) -> str:
    """The whole page.

    Args:
        parts: What ``templates/report.html`` names.

    Raises:
        jinja2.UndefinedError: If a part is missing.
    """
    loader = PackageLoader("prune_env.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(parts)
