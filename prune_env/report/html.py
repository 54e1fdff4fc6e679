"""The report's looks: a page of its own without scripts or links, and the small pieces that it is made of."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--line:#d1d9e0;--paper:#fff;--panel:#f6f8fa;
--blue:#0072b2;--warn:#d55e00}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--panel:#161b22;
--blue:#56b4e9;--warn:#e69f00}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;color:var(--ink);background:var(--paper);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.verdict{border-left:.3rem solid var(--blue);background:var(--panel);padding:.5rem .8rem;margin:.5rem 0}
.verdict.behind{border-color:var(--warn)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600}
th.number,td.number{text-align:right;white-space:nowrap}
td:first-child{white-space:nowrap}
tr.chosen td{font-weight:600}
td.bar{min-width:7rem;vertical-align:middle}
td.bar div{background:var(--line);border-radius:.2rem;height:.7rem;overflow:hidden}
td.bar i{display:block;background:var(--blue);height:100%}
td.bins{vertical-align:middle}
td.bins div{display:flex;align-items:flex-end;gap:1px;height:1.5rem;width:7rem;border-bottom:1px solid var(--soft)}
td.bins i{flex:1;background:var(--blue)}
figure{margin:0 0 1.2rem}
figure img{display:block;width:100%;min-width:40rem;height:auto;border-radius:.4rem;background:#fff}
pre{background:var(--panel);border:1px solid var(--line);border-radius:.4rem;padding:.7rem .9rem;overflow-x:auto;
font:.85rem/1.45 ui-monospace,monospace}
summary{cursor:pointer;font-weight:600;padding:.3rem 0}
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The browser's own guard: whatever a name smuggles in, nothing runs and nothing is fetched."""


class Cell(str):
    """A finished table cell; any other text that goes into a table is escaped."""

    __slots__ = ()


def page(title: str, body: Iterable[str]) -> str:
    """A whole page with a plain title and a body of HTML."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, of a class of the style sheet."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """A section's heading of plain text."""
    return f"<h2>{escape(text)}</h2>"


def code(text: str) -> str:
    """Plain text as it is."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, content: str) -> str:
    """HTML that opens at a tap on the plain title."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def picture(png: bytes, caption: str) -> str:
    """A PNG in the page itself, with a plain caption; on a narrow screen it scrolls sideways."""
    data = base64.b64encode(png).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{escape(caption)}</figcaption></figure>'


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = (), chosen: str | None = None
) -> str:
    """A table.

    Args:
        headings: Plain texts.
        rows: Plain texts, or finished cells.
        right: Columns of numbers, which stand at the right.
        chosen: The first cell of the row that stands out.
    """
    kinds = [' class="number"' if column in set(right) else "" for column in range(len(headings))]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for kind, text in zip(kinds, headings, strict=True))
    lines = []
    for row in rows:
        cells = [
            cell if isinstance(cell, Cell) else f"<td{kind}>{escape(cell)}</td>"
            for kind, cell in zip(kinds, row, strict=True)
        ]
        lines.append(('<tr class="chosen">' if row[0] == chosen else "<tr>") + "".join(cells) + "</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def bar(share: float) -> Cell:
    """A bar that fills ``share`` in [0, 1] of the cell."""
    return Cell(f'<td class="bar"><div><i style="width:{share:.1%}"></i></div></td>')


def bins(counts: Sequence[int]) -> Cell:
    """A histogram as tiny bars, the highest as high as the cell."""
    most = max([*counts, 1])
    bars = "".join(f'<i style="height:{count / most:.0%}"></i>' for count in counts)
    text = " ".join(map(str, counts))
    return Cell(f'<td class="bins" title="{text}"><div role="img" aria-label="{text}">{bars}</div></td>')
