"""Charts of plans: the keep ratios of the best, and what the search decided over the evaluations."""

from collections.abc import Sequence

from prune_env.report.charts.style import BOTH, Chart, Spec, hint


def keep_ratios(has_uniform: bool, count: int) -> Chart:
    """Keep ratio of each unit, from the table ``units``."""
    ratio = {"type": "quantitative", "axis": {"format": ".0%", "tickCount": 5}, "scale": {"domain": [0, 1]}}
    kept = {"domain": ["kept", "protected", "cut"], "range": ["var(--blue)", "var(--line)", "var(--pale)"]}
    tooltip = [
        hint("unit", "unit"),
        hint("kept", "kept"),
        hint("channels", "of channels"),
        hint("ratio", "keep ratio", ".0%"),
        hint("uniform_kept", "kept by uniform"),
        hint("saves_macs", "at least width saves MACs", ".1%"),
        hint("saves_params", "at least width saves params", ".1%"),
        hint("loss_rise", "rise of the loss, cut alone", ".4f"),
        hint("low_rank", "low-rank maps", ".0%"),
        hint("protected", "protected"),
    ]
    layers: list[Spec] = [
        {
            "transform": [{"calculate": "'cut'", "as": "cut"}, {"calculate": "1", "as": "whole"}],
            "mark": {"type": "bar"},
            "encoding": {
                "y": {"field": "whole", **ratio, "title": "channels kept"},
                "color": {"field": "cut", "scale": kept},
                "tooltip": tooltip,
            },
        },
        {
            "mark": {"type": "bar"},
            "encoding": {
                "y": {"field": "ratio", **ratio, "title": "channels kept"},
                "color": {"field": "state", "scale": kept},
                "tooltip": tooltip,
            },
        },
    ]
    if has_uniform:
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.uniform)"}],
                "mark": {"type": "tick", "color": "var(--vermilion)", "thickness": 2},
                "encoding": {"y": {"field": "uniform", **ratio, "title": "channels kept"}, "tooltip": tooltip},
            }
        )
    spec = {
        "width": "container",
        "height": 220,
        "data": {"name": "units"},
        "encoding": {
            "x": {
                "field": "unit",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelAngle": -90, "labelLimit": 130, "labelOverlap": True, "labelFontSize": 10},
            }
        },
        "layer": layers,
    }
    uniform = "; the line is the uniform plan" if has_uniform else ""
    caption = f"Channels kept of each unit in the best plan, in forward order{uniform}."
    return Chart("keep_ratios", caption, spec, least=min(60 + 14 * count, 900))


def heat_map(
    name: str, caption: str, count: int, episodes: Sequence[int], span: tuple[float, float], fmt: str
) -> Chart:
    """Values over the evaluations, from the tables NAME and NAME_rows.

    Args:
        name: The table. It has ``number`` and ``values`` for each plan; NAME_rows has ``index`` and ``row``.
        caption: What the chart shows.
        count: How many rows there are.
        episodes: The numbers of the plans.
        span: The values at the two ends of the colours.
        fmt: The format of a value.
    """
    step = max(1, len(episodes) // 12)
    grey = {"labelColor": BOTH, "titleColor": BOTH, "domainColor": BOTH, "tickColor": BOTH}
    spec = {
        "width": "container",
        "height": 13 * count,
        "data": {"name": name},
        "transform": [
            {"calculate": "sequence(0, length(datum.values))", "as": "index"},
            {"flatten": ["values", "index"], "as": ["value", "index"]},
            {"lookup": "index", "from": {"data": {"name": f"{name}_rows"}, "key": "index", "fields": ["row"]}},
        ],
        "mark": {"type": "rect"},
        "encoding": {
            "x": {
                "field": "number",
                "type": "ordinal",
                "title": "evaluations",
                "axis": {"values": list(episodes[::step]), "labelAngle": 0, **grey},
            },
            "y": {
                "field": "row",
                "type": "nominal",
                "sort": {"field": "index", "op": "min"},
                "title": None,
                "axis": {"labelLimit": 150, "labelFontSize": 10, **grey},
            },
            "color": {
                "field": "value",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "domain": list(span)},
                "legend": {
                    "format": fmt,
                    "orient": "right",
                    "labelColor": BOTH,
                    "gradientLength": min(160, 13 * count),
                },
            },
            "tooltip": [hint("row", "layer"), hint("number", "evaluation"), hint("value", "value", fmt)],
        },
    }
    return Chart(name, caption, spec, canvas=True, least=480)
