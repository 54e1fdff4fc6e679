"""What all charts share: Vega-Lite specifications whose data stand in named tables beside them.

Colours are the CSS variables of the page, so that a chart follows the page from light to dark and onto paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

Row = dict[str, Any]
"""One row of a table of data."""

Tables = dict[str, list[Row]]
"""Tables of data by name; a specification names the table that it draws."""

COSTS = {"macs": "MACs", "params": "params", "latency": "latency"}
"""The costs of the fronts, by the key of a row, as axes name them."""

_COLOURS = {
    "ddpg": "blue",
    "cma": "green",
    "cma_from_rules": "green",
    "tpe": "purple",
    "greedy": "orange",
    "power": "sky",
    "eigenvalue": "sky",
    "random": "soft",
    "uniform": "vermilion",
    "probe": "soft",
    "dense": "ink",
    "all runs": "ink",
    "td3": "ink",
    "sac": "orange",
    "ppo": "purple",
}
_DASHED = ("cma_from_rules", "eigenvalue", "sac", "ppo", "uniform")
_OTHERS = ("green", "purple", "orange", "sky", "blue", "vermilion", "ink")
BOTH = "#768390"
"""A grey that is readable on white and on black, for charts that a canvas draws."""

THEME: Spec = {
    "background": "transparent",
    "autosize": {"type": "fit-x", "contains": "padding"},
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "gridColor": "var(--pale)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 12,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--soft)",
        "orient": "top",
        "title": None,
        "labelFontSize": 12,
        "labelLimit": 220,
        "columnPadding": 14,
        "symbolOpacity": 1,
    },
}
"""The look of all charts."""


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Its name in the page, made of letters, digits and underscores.
        caption: What it shows, in a sentence; screen readers read it, too.
        spec: The specification.
        canvas: Whether a canvas draws it, which is faster for thousands of marks.
        least: Least width in pixels; on a narrower screen the chart scrolls sideways.
    """

    name: str
    caption: str
    spec: Spec = field(repr=False)
    canvas: bool = False
    least: int = 0


def from_floor(floor: float | None) -> Spec:
    """The scale of a vertical axis; values below the floor are drawn on it."""
    return {"zero": False, "clamp": True, "padding": 6} | ({} if floor is None else {"domainMin": floor})


def hint(key: str, title: str, fmt: str | None = None) -> Spec:
    """One line of a tooltip."""
    return {"field": key, "title": title} | ({} if fmt is None else {"format": fmt, "type": "quantitative"})


def colour(key: str, names: Sequence[str]) -> Spec:
    """The encoding of names as colours."""
    scale = {"domain": list(names), "range": [f"var(--{colour})" for colour in colours_of(names).values()]}
    return {"field": key, "type": "nominal", "scale": scale}


def dash(key: str, names: Sequence[str]) -> Spec:
    """The encoding of names as whole and dashed lines."""
    scale = {"domain": list(names), "range": [[3, 3] if name in _DASHED else [1, 0] for name in names]}
    return {"field": key, "type": "nominal", "scale": scale}


def colours_of(names: Sequence[str]) -> Mapping[str, str]:
    """A colour of the page for each name; names without a fixed colour get one in their order."""
    others = [name for name in names if name not in _COLOURS]
    return {name: _COLOURS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)] for name in names}
