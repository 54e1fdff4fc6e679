"""The HTML of the report page: a Jinja template that escapes every text, and its parts."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from prune_env.common.text import printable


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar that fills ``share`` of its width, in [0, 1]."""

    share: float

    @property
    def width(self) -> str:
        """The bar's width in CSS."""
        return f"{self.share:.1%}"


@dataclass(frozen=True)
class Bins:
    """A table cell with a histogram of small bars; the highest bar fills the cell."""

    counts: Sequence[int]

    @property
    def heights(self) -> list[str]:
        """The bars' heights in CSS."""
        most = max([*self.counts, 1])
        return [f"{count / most:.0%}" for count in self.counts]

    @property
    def text(self) -> str:
        """The counts as text."""
        return " ".join(map(str, self.counts))


Cell = str | Bar | Bins
"""A table cell; plain text is escaped."""


@dataclass(frozen=True)
class HtmlTable:
    """A table.

    Attributes:
        headings: Plain texts.
        rows: Plain texts, bars or histograms.
        right: Indices of the right-aligned columns.
        chosen: The first cell of the highlighted row.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Collection[int] = ()
    chosen: str | None = None


@dataclass(frozen=True)
class Picture:
    """A PNG embedded in the page, with a plain caption; it scrolls sideways on a narrow screen."""

    png: bytes = field(repr=False)
    caption: str

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class PageSection:
    """A section with a heading, a paragraph of plain text (may be empty) and a table."""

    title: str
    words: str
    table: HtmlTable


def render(template: str = "report.html", **parts: object) -> str:
    """Renders the whole page, or another template.

    Args:
        template: The file in ``templates``.
        parts: The variables of the template.

    Raises:
        jinja2.UndefinedError: If a part is missing.
    """
    loader = PackageLoader("prune_env.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_as_text,
    )
    return environment.get_template(template).render(parts)


def _as_text(value: object) -> object:
    """Control characters as such in every text; the page's own HTML stays."""
    return printable(value) if type(value) is str else value
