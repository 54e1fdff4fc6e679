"""Charts of searches: rewards, quality against cost, and the best so far of several searches."""

from collections.abc import Sequence

from prune_env.report.charts.style import COSTS, Chart, Spec, colour, dash, from_floor, hint


def rewards(kinds: Sequence[str], floor: float | None, uniform: bool) -> Chart:
    """Reward of each plan and the best so far, from the tables ``plans``, ``curves`` and ``uniform``."""
    scale = from_floor(floor)
    number: Spec = {"field": "number", "type": "quantitative", "title": "evaluations", "axis": {"tickMinStep": 1}}
    shade = colour("by", kinds)
    layers: list[Spec] = [
        {
            "data": {"name": "plans"},
            "transform": [{"filter": "datum.search"}],
            "mark": {"type": "point", "filled": True, "size": 28, "opacity": 0.45, "cursor": "pointer"},
            "encoding": {
                "x": number,
                "y": {"field": "reward", "type": "quantitative", "scale": scale, "title": "reward"},
                "color": shade,
                "tooltip": [
                    hint("number", "evaluation"),
                    hint("by", "proposed by"),
                    hint("reward", "reward", ".4f"),
                    hint("quality", "quality", ".2%"),
                ],
            },
        },
        {
            "data": {"name": "curves"},
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {
                "x": number,
                "y": {"field": "best", "type": "quantitative", "scale": scale, "title": "reward"},
                "color": shade,
                "strokeDash": dash("by", kinds),
                "tooltip": [
                    hint("by", "best so far of"),
                    hint("number", "evaluation"),
                    hint("best", "reward", ".4f"),
                ],
            },
        },
    ]
    if uniform:
        layers.append(
            {
                "data": {"name": "uniform"},
                "mark": {"type": "rule", "strokeWidth": 1.5, "strokeDash": [5, 4]},
                "encoding": {
                    "y": {"field": "reward", "type": "quantitative", "scale": scale, "title": "reward"},
                    "color": shade,
                    "tooltip": [hint("by", "plan"), hint("reward", "reward", ".4f")],
                },
            }
        )
    low = " Plans below the scale sit on its lower end." if floor is not None else ""
    caption = f"Reward of each plan, and the best so far; evaluations count as in a comparison, probes included.{low}"
    return Chart("rewards", caption, {"width": "container", "height": 240, "layer": layers})


def front(
    cost: str,
    title: str,
    quality: str,
    kinds: Sequence[str],
    floor: float | None = None,
    budget: float | None = None,
    picked: bool = False,
) -> Chart:
    """Quality against a cost with the Pareto front, from the tables ``plans``, ``fronts`` and ``selected``.

    Args:
        cost: The key of the cost in the tables, of `COSTS`.
        title: The title of the horizontal axis.
        quality: The task's name for its quality.
        kinds: The values of ``by``, which give the colours.
        floor: The lower end of the quality axis; None for the data's own.
        budget: Where a line shows the budget; None for no line.
        picked: Whether a ring shows the plan in ``selected``.
    """
    across: Spec = {"field": cost, "type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}}
    if cost != "latency":
        across["axis"] = {"format": ".0%", "tickCount": 5}
    scale = from_floor(floor)
    up: Spec = {"field": "quality", "type": "quantitative", "title": quality, "scale": scale, "axis": {"format": ".0%"}}
    shade = colour("by", kinds)
    tooltip = [
        hint("number", "evaluation"),
        hint("by", "of"),
        hint("quality", quality, ".2%"),
        hint("macs", "MACs", ".1%"),
        hint("params", "params", ".1%"),
        hint("latency", "ms", ".3f"),
        hint("reward", "reward", ".4f"),
    ]
    shown = {"filter": f"isValid(datum.{cost}) && isValid(datum.quality)"}
    layers: list[Spec] = [
        {
            "data": {"name": "plans"},
            "transform": [shown],
            "mark": {"type": "point", "filled": True, "opacity": 0.5, "cursor": "pointer"},
            "encoding": {
                "x": across,
                "y": up,
                "color": shade,
                "size": {"condition": {"test": "datum.big", "value": 130}, "value": 28},
                "tooltip": tooltip,
            },
        },
        {
            "data": {"name": "fronts"},
            "transform": [{"filter": f"datum.cost == '{cost}'"}],
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "point": {"size": 36}},
            "encoding": {
                "x": across,
                "y": up,
                "color": shade,
                "detail": {"field": "front"},
                "tooltip": tooltip,
            },
        },
    ]
    if picked:
        ring = {"type": "point", "filled": False, "size": 160, "strokeWidth": 2, "stroke": "var(--ink)"}
        encoding = {"x": across, "y": up, "tooltip": tooltip}
        layers.append({"data": {"name": "selected"}, "transform": [shown], "mark": ring, "encoding": encoding})
    if budget is not None:
        rule = {"type": "rule", "strokeDash": [4, 3], "stroke": "var(--soft)", "tooltip": f"budget {budget:.0%}"}
        layers.append({"data": {"values": [{cost: budget}]}, "mark": rule, "encoding": {"x": across}})
    caption = f"{quality.capitalize()} on the reward set against {COSTS[cost]}. The line is the Pareto front."
    return Chart(f"front_{cost}", caption, {"width": "container", "height": 260, "layer": layers})


def comparison(names: Sequence[str], quality: str, floor: float | None) -> Chart:
    """Best quality so far of each search with its interval, from the table ``bands``."""
    scale = from_floor(floor)
    title = f"best {quality} so far"
    across: Spec = {"field": "number", "type": "quantitative", "title": "evaluations, probes counted"}
    shade, axis = colour("by", names), {"format": ".1%"}
    tooltip = [
        hint("by", "search"),
        hint("number", "evaluation"),
        hint("mean", "mean", ".2%"),
        hint("low", "low", ".2%"),
        hint("high", "high", ".2%"),
    ]
    spec = {
        "width": "container",
        "height": 340,
        "data": {"name": "bands"},
        "encoding": {"x": across, "color": shade, "tooltip": tooltip},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.14},
                "encoding": {
                    "y": {"field": "low", "type": "quantitative", "scale": scale, "title": title, "axis": axis},
                    "y2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "y": {"field": "mean", "type": "quantitative", "scale": scale, "title": title, "axis": axis},
                    "strokeDash": dash("by", names),
                },
            },
        ],
    }
    caption = (
        f"Best {quality} so far on the reward set: the mean over the seeds, and its 95 % interval. "
        "Click a name to see its search alone; shift-click adds one."
    )
    chosen = {"name": "chosen", "select": {"type": "point", "fields": ["by"]}, "bind": "legend"}
    shown = {"condition": {"param": "chosen", "value": 1}, "value": 0.08}
    spec["layer"][1]["params"] = [chosen]  # type: ignore[index]
    spec["layer"][1]["encoding"]["opacity"] = shown  # type: ignore[index]
    return Chart("comparison", caption, spec)
