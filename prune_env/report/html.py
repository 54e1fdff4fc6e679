"""The HTML of the pages: Jinja templates that escape every text, and their parts."""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from prune_env.common.text import printable
from prune_env.report.charts import THEME, Chart, Tables
from prune_env.report.vega import vega_script


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


@dataclass(frozen=True)
class Number:
    """A table cell with a number: its text, and the value that its column is sorted by."""

    words: str
    value: float

    @classmethod
    def of(cls, value: float | None, fmt: str) -> "Number":
        """A formatted number; an empty cell, sorted last, for None and nan."""
        known = value is not None and isfinite(value)
        return cls(format(value, fmt), value) if known and value is not None else cls("", float("-inf"))


@dataclass(frozen=True)
class Pick:
    """A table cell with a button that shows the plan of a trial."""

    trial: int


@dataclass(frozen=True)
class Link:
    """A table cell with a link to another page of the same folder."""

    words: str
    place: str


Cell = str | Bar | Bins | Number | Pick | Link
"""A table cell; plain text is escaped."""


@dataclass(frozen=True)
class HtmlTable:
    """A table.

    Attributes:
        headings: Plain texts.
        rows: The cells.
        right: Indices of the right-aligned columns.
        chosen: The first cell of the highlighted row.
        sortable: Whether a click on a heading sorts the rows.
        caption: What the table holds, for screen readers; empty where the heading above says it.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Collection[int] = ()
    chosen: str | None = None
    sortable: bool = False
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A number of the headline: what it is, the number, and what it compares with."""

    title: str
    value: str
    words: str


@dataclass(frozen=True)
class Picture:
    """An image embedded in the page, with a plain caption; it scrolls sideways on a narrow screen."""

    png: bytes = field(repr=False)
    caption: str

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class PageSection:
    """A section with a heading, a paragraph of plain text (may be empty), charts and a table.

    Attributes:
        title: The heading.
        words: The paragraph.
        table: The table, or None.
        charts: The charts above the table; several stand side by side where there is room.
        folded: Whether the table is hidden behind its heading until it is opened.
        plans: Whether the plan that a reader picks is shown between charts and table.
    """

    title: str
    words: str
    table: HtmlTable | None = None
    charts: Sequence[Chart] = ()
    folded: bool = False
    plans: bool = False
    pictures: Sequence[Picture] = ()


def render(template: str, **parts: object) -> str:
    """Renders a template that needs no script.

    Args:
        template: The file in ``templates/``.
        parts: The variables of the template.

    Raises:
        jinja2.UndefinedError: If a part is missing.
    """
    return _environment().get_template(template).render(parts)


def render_page(
    template: str, sections: Sequence[PageSection], tables: Tables, more: Mapping[str, Any], **parts: object
) -> str:
    """Renders a whole page.

    Args:
        template: The file in ``templates/``.
        sections: The sections.
        tables: The tables that the charts draw.
        more: More data for the script of the page.
        parts: The other variables of the template.

    Raises:
        jinja2.UndefinedError: If a part is missing.
    """
    charts = [chart for section in sections for chart in section.charts]
    data = {
        "charts": {chart.name: {"spec": chart.spec, "canvas": chart.canvas} for chart in charts},
        "config": THEME,
        "tables": tables,
        **more,
    }
    environment = _environment()
    scripts = [vega_script(), _file(environment, "page.js")] if charts else [_file(environment, "page.js")]
    return environment.get_template(template).render(
        sections=sections,
        scripts=scripts,
        sources=" ".join(_digest(script) for script in scripts),
        style=_file(environment, "page.css"),
        data=_inline(data),
        **parts,
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("prune_env.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_as_text,
    )


def _file(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _digest(script: str) -> str:
    """The script's source expression in a content security policy: the browser runs no other script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _inline(data: object) -> str:
    """JSON that no text within can end early; numbers that are not finite become null."""
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    """The value with numbers of six digits, None for what is not finite, and control characters as such."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _as_text(value: object) -> object:
    """Control characters as such in every text; the page's own HTML stays."""
    return printable(value) if type(value) is str else value
